// im2col and its adjoint col2im: all of the convolutions but their matrix products. q = (n*OH + i)*OW + j counts the
// Q = N*OH*OW pixels of all maps; k = (c*KH + u)*KW + v counts the taps under a window.

// columns[k, q] = x[n, c, i*s - p + u*d, j*s - p + v*d], and 0 in the padding.
// A thread takes one channel under one window, and computes its position once for all KH*KW taps.
extern "C" __global__ void im2col(const real *__restrict__ x, real *__restrict__ columns, int64 N, int64 C, WINDOWS) {
    int64 Q = N * OH * OW;
    FOR_EACH(e, C * Q) {
        int64 c = e / Q, q = e % Q;
        int64 n = q / (OH * OW), i = q / OW % OH, j = q % OW;
        const real *plane = x + (n * C + c) * H * W;
        real *column = columns + c * KH * KW * Q + q;
        for (int64 u = 0, h = i * sh - ph; u < KH; u++, h += dh)
            for (int64 v = 0, w = j * sw - pw; v < KW; v++, w += dw, column += Q)
                *column = 0 <= h && h < H && 0 <= w && w < W ? plane[h * W + w] : 0;
    }
}

// The first tap u with `reach` = i*s + u*d for some integer i >= 0; if there is none, one beyond the last tap.
__device__ int64 first_tap(int64 reach, int64 taps, int64 s, int64 d) {
    for (int64 u = 0; u < taps && u * d <= reach; u++)
        if ((reach - u * d) % s == 0) return u;
    return taps;
}

// x[n,c,h,w] = bias[c] + sum of columns[k, q] over the taps that met this pixel: h + p = i*s + u*d, w + p = j*s + v*d.
// A gather: a thread takes one pixel of the image and finds the taps that met it, so that no two threads write to the
// same place. From one such tap to the next it is `step` = s / gcd(s, d) taps and `back` = d / gcd(s, d) pixels of the
// map.
extern "C" __global__ void col2im(const real *__restrict__ columns, const real *__restrict__ bias, real *__restrict__ x,
                                  int64 N, int64 C, WINDOWS, int64 steph, int64 stepw, int64 backh, int64 backw) {
    int64 Q = N * OH * OW;
    FOR_EACH(e, N * C * H * W) {
        int64 w = e % W, h = e / W % H, c = e / (H * W) % C, n = e / (H * W) / C;
        int64 u0 = first_tap(h + ph, KH, sh, dh), v0 = first_tap(w + pw, KW, sw, dw);
        int64 i0 = (h + ph - u0 * dh) / sh, j0 = (w + pw - v0 * dw) / sw;
        const real *channel = columns + c * KH * KW * Q + n * OH * OW;
        real sum = 0;
        for (int64 u = u0, i = i0; u < KH && i >= 0; u += steph, i -= backh)
            for (int64 v = v0, j = j0; v < KW && j >= 0; v += stepw, j -= backw)
                if (i < OH && j < OW) sum += channel[(u * KW + v) * Q + i * OW + j];
        x[e] = bias ? sum + bias[c] : sum;
    }
}

// y[n,o,r] += bias[o], for maps of `size` pixels.
extern "C" __global__ void add_bias(real *__restrict__ y, const real *__restrict__ bias, int64 N, int64 O, int64 size) {
    FOR_EACH(e, N * O * size) y[e] += bias[e / size % O];
}
