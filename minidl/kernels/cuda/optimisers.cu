// One step of an optimiser on n elements, in place. Formulas and names as in reference.py; rate1 = 1 - beta1 and so on.
//
// What changes from step to step may come from a buffer on the device, `changing`, instead of the arguments: a recorded
// graph of launches is replayed with the same arguments, but reads the buffer anew.

// Running means of a gradient that stays zero become denormal numbers, smaller than `tiny`: set them to zero.
__device__ real flushed(real value, real tiny) { return fabs(value) < tiny ? (real)0 : value; }

// 0 * an infinite parameter would be NaN.
__device__ real decayed(real g, real p, real decay) { return decay != 0 ? g + decay * p : g; }

// changing: lr / (1 - beta1^step), called `rate`, and sqrt(1 - beta2^step), called `root`.
extern "C" __global__ void adam(real *__restrict__ p, const real *__restrict__ g, real *__restrict__ m,
                                real *__restrict__ v, const double *__restrict__ changing, real rate, real root,
                                real rate1, real beta2, real rate2, real eps, real decay, real tiny, int64 n) {
    if (changing) rate = (real)changing[0], root = (real)changing[1];
    FOR_EACH(e, n) {
        real ge = decayed(g[e], p[e], decay);
        // In one rounding: where numbers below `tiny` count as 0, the product of a small m would be lost, and m kept.
        real me = flushed(fma(rate1, ge - m[e], m[e]), tiny);
        real ve = beta2 * v[e] + rate2 * ge * ge;
        if (ve < tiny) ve = 0;
        m[e] = me;
        v[e] = ve;
        p[e] -= rate * me / (sqrt(ve) / root + eps);
    }
}

// changing: lr
extern "C" __global__ void sgd(real *__restrict__ p, const real *__restrict__ g, const double *__restrict__ changing,
                               real lr, real decay, int64 n) {
    if (changing) lr = (real)changing[0];
    FOR_EACH(e, n) p[e] -= lr * decayed(g[e], p[e], decay);
}

// changing: lr
extern "C" __global__ void sgd_momentum(real *__restrict__ p, const real *__restrict__ g, real *__restrict__ buf,
                                        const double *__restrict__ changing, real lr, real momentum, real rate,
                                        int64 nesterov, real decay, real tiny, int64 n) {
    if (changing) lr = (real)changing[0];
    FOR_EACH(e, n) {
        real ge = decayed(g[e], p[e], decay);
        real be = flushed(momentum * buf[e] + rate * ge, tiny);
        buf[e] = be;
        p[e] -= lr * (nesterov ? ge + momentum * be : be);
    }
}
