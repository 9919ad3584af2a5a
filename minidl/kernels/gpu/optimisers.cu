// One step of an optimiser for many parameters in one launch, in place. Formulas and names as in reference.py;
// rate1 = 1 - beta1 and so on. Threads take elements of all parameters as if they were one long vector.
//
// The numbers that change from step to step may come from a buffer on the device instead of the arguments: a captured
// graph of launches is replayed with the same arguments, but reads the buffer anew.

const int64 PARAMETERS = 64;  // of one launch, whose arguments take 4 KB at most

struct Parameters {
    int64 count;
    int64 ends[PARAMETERS];  // where in the vector of all elements each parameter ends
    real *p[PARAMETERS], *g[PARAMETERS], *m[PARAMETERS], *v[PARAMETERS];
};

// Which parameter element e belongs to: the first that ends behind it.
__device__ int64 owner(const Parameters &list, int64 e) {
    int64 low = 0, high = list.count - 1;
    while (low < high) {
        int64 middle = (low + high) / 2;
        if (e < list.ends[middle])
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

// Loops over the elements: k is the parameter, e its element.
#define FOR_EACH_OF(list, k, e)                                                          \
    FOR_EACH(place, list.ends[list.count - 1])                                           \
    for (int64 k = owner(list, place), e = place - (k ? list.ends[k - 1] : 0), once = 1; once; once = 0)

// Running means of a gradient that stays zero become denormal numbers, smaller than `tiny`: flush them to zero.
__device__ real flushed(real value, real tiny) { return fabs(value) < tiny ? (real)0 : value; }

// 0 * an infinite parameter would be NaN.
__device__ real decayed(real g, real p, real decay) { return decay != 0 ? g + decay * p : g; }

// Buffer: rate = lr / (1 - beta1^t) and root = sqrt(1 - beta2^t), at step t.
extern "C" __global__ void adam(Parameters list, const double *__restrict__ buffer, real rate, real root, real rate1,
                                real beta2, real rate2, real eps, real decay, real tiny) {
    if (buffer) rate = (real)buffer[0], root = (real)buffer[1];
    FOR_EACH_OF(list, k, e) {
        real *p = list.p[k] + e, *m = list.m[k] + e, *v = list.v[k] + e;
        real ge = decayed(list.g[k][e], *p, decay);
        // With a single rounding: where numbers below `tiny` count as 0, the product of a small m would be lost, and m
        // would stay as it is.
        real me = flushed(fma(rate1, ge - *m, *m), tiny);
        real ve = beta2 * *v + rate2 * ge * ge;
        if (ve < tiny) ve = 0;
        *m = me;
        *v = ve;
        *p -= rate * me / (sqrt(ve) / root + eps);
    }
}

// Buffer: lr.
extern "C" __global__ void sgd(Parameters list, const double *__restrict__ buffer, real lr, real decay) {
    if (buffer) lr = (real)buffer[0];
    FOR_EACH_OF(list, k, e) {
        real *p = list.p[k] + e;
        *p -= lr * decayed(list.g[k][e], *p, decay);
    }
}

// Buffer: lr. The running sum is m.
extern "C" __global__ void sgd_momentum(Parameters list, const double *__restrict__ buffer, real lr, real momentum,
                                        real rate, int64 nesterov, real decay, real tiny) {
    if (buffer) lr = (real)buffer[0];
    FOR_EACH_OF(list, k, e) {
        real *p = list.p[k] + e, *m = list.m[k] + e;
        real ge = decayed(list.g[k][e], *p, decay);
        real me = flushed(momentum * *m + rate * ge, tiny);
        *m = me;
        *p -= lr * (nesterov ? ge + momentum * me : me);
    }
}
