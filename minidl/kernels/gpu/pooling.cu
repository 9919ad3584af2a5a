// Max-pooling, and reading and writing planes by flat indices h*W + w. Also for integers.

// y[n,c,i,j] = max over u, v of x[n, c, i*s - p + u*d, j*s - p + v*d], over the taps inside the image, and the index of
// the first maximum, or of the last NaN, which counts as greater than all numbers. A thread takes one window.
extern "C" __global__ void max_pool2d(const real *__restrict__ x, real *__restrict__ y, int64 *__restrict__ indices,
                                      int64 planes, WINDOWS) {
    FOR_EACH(e, planes * OH * OW) {
        int64 j = e % OW, i = e / OW % OH;
        const real *plane = x + e / (OH * OW) * (H * W);
        real best = 0;
        int64 place = -1;
        for (int64 u = 0, h = i * sh - ph; u < KH; u++, h += dh)
            for (int64 v = 0, w = j * sw - pw; v < KW; v++, w += dw) {
                if (h < 0 || h >= H || w < 0 || w >= W) continue;
                real value = plane[h * W + w];
                if (place < 0 || value > best || value != value) best = value, place = h * W + w;
            }
        y[e] = best;
        indices[e] = place;
    }
}

// y[plane, q] = x[plane, indices[plane, q]]; an index outside the plane reads 0.
// Planes of `pixels` in x, of `size` in y.
extern "C" __global__ void pick(const real *__restrict__ x, const int64 *__restrict__ indices, real *__restrict__ y,
                                int64 planes, int64 pixels, int64 size) {
    FOR_EACH(e, planes * size) {
        int64 k = indices[e];
        y[e] = 0 <= k && k < pixels ? x[e / size * pixels + k] : 0;
    }
}

// x[plane, k] = sum of y[plane, q] over all q whose index is k, in the order of q; an index outside is skipped.
// Planes of `pixels` in x, of `size` in y.
// Without atomics: thread (plane, share) owns the pixels k with k % shares == share. It goes through all indices of its
// plane and adds up the values of its own pixels. `shares` is a power of two.
extern "C" __global__ void put(const real *__restrict__ y, const int64 *__restrict__ indices, real *__restrict__ x,
                               int64 planes, int64 pixels, int64 size, int64 shares) {
    FOR_EACH(e, planes * shares) {
        int64 plane = e / shares, share = e % shares;
        real *pixel = x + plane * pixels;
        for (int64 k = share; k < pixels; k += shares) pixel[k] = 0;
        for (int64 q = plane * size; q < (plane + 1) * size; q++) {
            int64 k = indices[q];
            if (0 <= k && k < pixels && (k & (shares - 1)) == share) pixel[k] += y[q];
        }
    }
}
