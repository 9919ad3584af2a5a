// Sums over all values of each channel of y (N, C, size), in double precision: a sum over a whole batch would lose the
// digits that it is long for. A channel's values r = n*size + i are dealt out to P pieces, one thread each: piece p
// gets r = p, p + P, p + 2P, ... The pieces are summed by a second launch.

// The sum of piece p of channel c.
__device__ double piece_sum(const real *__restrict__ y, int64 N, int64 C, int64 size, int64 c, int64 p, int64 P) {
    int64 images = P / size, pixels = P % size;  // how far it is from one value to the next
    double sum = 0;
    for (int64 n = p / size, i = p % size; n < N; n += images, i += pixels) {
        if (i >= size) {
            i -= size;
            if (++n >= N) break;
        }
        sum += y[(n * C + c) * size + i];
    }
    return sum;
}

// partial[c, p] = sum of piece p of channel c. Neighbouring threads take neighbours in memory: the pieces of a channel,
// or, `across`, the same piece of neighbouring channels.
extern "C" __global__ void sum_pieces(const real *__restrict__ y, double *__restrict__ partial, int64 N, int64 C,
                                      int64 size, int64 P, int64 across) {
    FOR_EACH(e, C * P) {
        int64 c = across ? e % C : e / P, p = across ? e / C : e % P;
        partial[c * P + p] = piece_sum(y, N, C, size, c, p, P);
    }
}

// folded[c, q] = sum over p = q, q + Q, ... of partial[c, p]
extern "C" __global__ void fold_pieces(const double *__restrict__ partial, double *__restrict__ folded, int64 C,
                                       int64 P, int64 Q) {
    FOR_EACH(e, C * Q) {
        double sum = 0;
        for (int64 p = e % Q; p < P; p += Q) sum += partial[e / Q * P + p];
        folded[e] = sum;
    }
}

// sums[c] = sum over p of partial[c, p]
extern "C" __global__ void join_pieces(const double *__restrict__ partial, real *__restrict__ sums, int64 C, int64 P) {
    FOR_EACH(c, C) {
        double sum = 0;
        for (int64 p = 0; p < P; p++) sum += partial[c * P + p];
        sums[c] = (real)sum;
    }
}

// sums[c] = sum of all values of channel c, for few of them: one launch is enough.
extern "C" __global__ void sum_channels(const real *__restrict__ y, real *__restrict__ sums, int64 N, int64 C,
                                        int64 size) {
    FOR_EACH(c, C) sums[c] = (real)piece_sum(y, N, C, size, c, 0, 1);
}
