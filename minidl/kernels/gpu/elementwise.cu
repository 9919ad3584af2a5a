// Elementwise operations on n elements. NaN stays NaN.

extern "C" __global__ void relu(const real *__restrict__ x, real *__restrict__ y, int64 n) {
    FOR_EACH(e, n) y[e] = x[e] <= 0 ? (real)0 : x[e];
}

extern "C" __global__ void relu_backward(const real *__restrict__ gy, const real *__restrict__ y,
                                         real *__restrict__ gx, int64 n) {
    FOR_EACH(e, n) gx[e] = y[e] <= 0 ? (real)0 : gy[e];
}

__device__ real logistic(real x) {
    real z = exp(-fabs(x));  // in (0, 1]: never overflows
    return (x >= 0 ? (real)1 : z) / (1 + z);
}

extern "C" __global__ void sigmoid(const real *__restrict__ x, real *__restrict__ y, int64 n) {
    FOR_EACH(e, n) y[e] = logistic(x[e]);
}

extern "C" __global__ void sigmoid_backward(const real *__restrict__ gy, const real *__restrict__ y,
                                            real *__restrict__ gx, int64 n) {
    FOR_EACH(e, n) gx[e] = gy[e] * y[e] * (1 - y[e]);
}

extern "C" __global__ void tanh_backward(const real *__restrict__ gy, const real *__restrict__ y,
                                         real *__restrict__ gx, int64 n) {
    FOR_EACH(e, n) gx[e] = gy[e] * (1 - y[e] * y[e]);
}

extern "C" __global__ void erf_kernel(const real *__restrict__ x, real *__restrict__ y, int64 n) {
    FOR_EACH(e, n) y[e] = erf(x[e]);
}

extern "C" __global__ void scaled_difference(const real *__restrict__ x, const real *__restrict__ t,
                                             const real *__restrict__ scale, real factor, real *__restrict__ y,
                                             int64 n) {
    FOR_EACH(e, n) y[e] = (x[e] - t[e]) * (scale[0] * factor);
}

extern "C" __global__ void scaled_logistic_difference(const real *__restrict__ x, const real *__restrict__ t,
                                                      const real *__restrict__ scale, real factor, real *__restrict__ y,
                                                      int64 n) {
    FOR_EACH(e, n) y[e] = (logistic(x[e]) - t[e]) * (scale[0] * factor);
}
