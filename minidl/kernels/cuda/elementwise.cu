// Elementwise operations on n elements. NaN stays NaN.

extern "C" __global__ void relu(const real *__restrict__ x, real *__restrict__ y, int64 n) {
    FOR_EACH(e, n) y[e] = x[e] <= 0 ? (real)0 : x[e];
}

extern "C" __global__ void relu_backward(const real *__restrict__ gy, const real *__restrict__ y,
                                         real *__restrict__ gx, int64 n) {
    FOR_EACH(e, n) gx[e] = y[e] <= 0 ? (real)0 : gy[e];
}

extern "C" __global__ void sigmoid(const real *__restrict__ x, real *__restrict__ y, int64 n) {
    FOR_EACH(e, n) {
        real z = exp(-fabs(x[e]));  // in (0, 1]: never overflows
        y[e] = (x[e] >= 0 ? (real)1 : z) / (1 + z);
    }
}

extern "C" __global__ void sigmoid_backward(const real *__restrict__ gy, const real *__restrict__ y,
                                            real *__restrict__ gx, int64 n) {
    FOR_EACH(e, n) gx[e] = gy[e] * y[e] * (1 - y[e]);
}

extern "C" __global__ void tanh_backward(const real *__restrict__ gy, const real *__restrict__ y,
                                         real *__restrict__ gx, int64 n) {
    FOR_EACH(e, n) gx[e] = gy[e] * (1 - y[e] * y[e]);
}

extern "C" __global__ void squared_error(const real *__restrict__ x, const real *__restrict__ t, real *__restrict__ y,
                                         int64 n) {
    FOR_EACH(e, n) y[e] = (x[e] - t[e]) * (x[e] - t[e]);
}

extern "C" __global__ void scaled_difference(const real *__restrict__ x, const real *__restrict__ t,
                                             const real *__restrict__ scale, real *__restrict__ y, int64 n) {
    FOR_EACH(e, n) y[e] = (x[e] - t[e]) * scale[0];
}
