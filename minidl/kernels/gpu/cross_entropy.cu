// Cross-entropy of logits x (N, C, size) and classes (N, size). A thread takes one sample (n, r), whose logits are
// `size` apart. A class out of range gives NaN.

// The greatest of a sample's logits; NaN if one of them is.
__device__ real greatest_of(const real *__restrict__ x, int64 C, int64 size) {
    real greatest = x[0];
    for (int64 c = 1; c < C; c++)
        if (x[c * size] > greatest || x[c * size] != x[c * size]) greatest = x[c * size];
    return greatest;
}

// Sum over c of e^(x_c - greatest), which cannot overflow.
__device__ real sum_of_powers(const real *__restrict__ x, int64 C, int64 size, real greatest) {
    real sum = 0;
    for (int64 c = 0; c < C; c++) sum += exp(x[c * size] - greatest);
    return sum;
}

// y[n,r] = ln(sum over c of e^x_c) - x_class
extern "C" __global__ void cross_entropy(const real *__restrict__ x, const int64 *__restrict__ classes,
                                         real *__restrict__ y, int64 N, int64 C, int64 size) {
    FOR_EACH(e, N * size) {
        const real *sample = x + e / size * C * size + e % size;
        int64 k = classes[e];
        real greatest = greatest_of(sample, C, size);
        real chosen = 0 <= k && k < C ? sample[k * size] : (real)nan("");
        y[e] = log(sum_of_powers(sample, C, size, greatest)) - (chosen - greatest);
    }
}

// gx[n,c,r] = gy[n,r] * (softmax(x)_c - [c = class])
extern "C" __global__ void cross_entropy_backward(const real *__restrict__ gy, const real *__restrict__ x,
                                                  const int64 *__restrict__ classes, real *__restrict__ gx, int64 N,
                                                  int64 C, int64 size) {
    FOR_EACH(e, N * size) {
        int64 first = e / size * C * size + e % size, k = classes[e];
        real greatest = greatest_of(x + first, C, size);
        real sum = 0 <= k && k < C ? sum_of_powers(x + first, C, size, greatest) : (real)nan("");
        for (int64 c = 0; c < C; c++)
            gx[first + c * size] = gy[e] * (exp(x[first + c * size] - greatest) / sum - (c == k ? 1 : 0));
    }
}
