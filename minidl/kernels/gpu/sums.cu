// Sums over all values of each channel of y (N, C, size), in double precision, since a single-precision sum over a
// whole batch would lose digits. The values of a channel, r = n*size + i, are distributed over P blocks of THREADS
// threads; a second launch adds up the sums of the blocks.
//
// Only here do threads of a block wait for each other. Which values a thread sums, and the order in which the sums of
// the threads are added, depend only on THREADS and the sizes: the bits are the same each time.

const int64 THREADS = 256;

struct Values {
    const real *y;
    __device__ double operator()(int64 e) const { return y[e]; }
};

struct Partial {
    const double *y;
    __device__ double operator()(int64 e) const { return y[e]; }
};

struct SquaredErrors {
    const real *x, *t;
    __device__ double operator()(int64 e) const {
        real error = x[e] - t[e];
        return error * error;
    }
};

struct LogisticLosses {
    const real *x, *t;
    __device__ double operator()(int64 e) const {
        real positive = x[e] < 0 ? (real)0 : x[e];  // NaN stays NaN
        return positive - x[e] * t[e] + log1p(exp(-fabs(x[e])));
    }
};

// The sum of the values r = first, first + step, first + 2*step, ... of channel c.
template <class Of>
__device__ double every(Of value, int64 N, int64 C, int64 size, int64 c, int64 first, int64 step) {
    int64 images = step / size, pixels = step % size;  // how far it is from one value to the next
    double sum = 0;
    for (int64 n = first / size, i = first % size; n < N; n += images, i += pixels) {
        if (i >= size) {
            i -= size;
            if (++n >= N) break;
        }
        sum += value((n * C + c) * size + i);
    }
    return sum;
}

// sums[c, p] = scale * sum over the values r of channel c that block p gets. Neighbouring threads take neighbours in
// memory: values of one channel, or, where a plane is smaller than what memory reads together, of W channels; then each
// channel has THREADS / W threads of a block. W is a power of two.
template <class Of, class Result>
__device__ void sum_up(Of value, Result *__restrict__ sums, int64 N, int64 C, int64 size, int64 P, int64 W,
                       double scale) {
    __shared__ double sum[THREADS];
    int64 t = threadIdx.x, threads = THREADS / W;
    for (int64 block = blockIdx.x; block < (C + W - 1) / W * P; block += gridDim.x) {
        int64 c = block / P * W + t % W, p = block % P;
        sum[t] = c < C ? every(value, N, C, size, c, p * threads + t / W, P * threads) : 0;
        for (int64 half = THREADS / 2; half >= W; half /= 2) {
            __syncthreads();
            if (t < half) sum[t] += sum[t + half];
        }
        if (t < W && c < C) sums[c * P + p] = (Result)(scale * sum[t]);
        __syncthreads();  // before `sum` is used again
    }
}

// sums[c] = scale * sum of channel c, for so few values that one block is enough.
extern "C" __global__ void __launch_bounds__(THREADS)
sum_channels(const real *__restrict__ y, real *__restrict__ sums, int64 N, int64 C, int64 size, int64 W, double scale) {
    sum_up(Values{y}, sums, N, C, size, 1, W, scale);
}

// partial[c, p] = the part of block p in the sum of channel c.
extern "C" __global__ void __launch_bounds__(THREADS)
sum_parts(const real *__restrict__ y, double *__restrict__ partial, int64 N, int64 C, int64 size, int64 P, int64 W) {
    sum_up(Values{y}, partial, N, C, size, P, W, 1);
}

// partial[c, p] = the part of block p in the sum of (x - t)^2 over channel c.
extern "C" __global__ void __launch_bounds__(THREADS)
sum_squared_errors(const real *__restrict__ x, const real *__restrict__ t, double *__restrict__ partial, int64 N,
                   int64 C, int64 size, int64 P, int64 W) {
    sum_up(SquaredErrors{x, t}, partial, N, C, size, P, W, 1);
}

// partial[c, p] = the part of block p in the sum of max(x, 0) - x t + ln(1 + e^-|x|) over channel c.
extern "C" __global__ void __launch_bounds__(THREADS)
sum_logistic_losses(const real *__restrict__ x, const real *__restrict__ t, double *__restrict__ partial, int64 N,
                    int64 C, int64 size, int64 P, int64 W) {
    sum_up(LogisticLosses{x, t}, partial, N, C, size, P, W, 1);
}

// sums[c] = scale * sum over p of partial[c, p]
extern "C" __global__ void __launch_bounds__(THREADS)
join_parts(const double *__restrict__ partial, real *__restrict__ sums, int64 C, int64 P, double scale) {
    sum_up(Partial{partial}, sums, 1, C, P, 1, 1, scale);
}
