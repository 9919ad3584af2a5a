// A linear map along the height and one along the width: average pooling, interpolation, and their gradients.

// y[plane, i, j] = sum over h, w of rows[i,h] * columns[j,w] * x[plane, h, w]. Row i of a sparse matrix consists of
// the terms starts[i] <= t < starts[i+1], with sources[t] and weights[t]. Nothing else is read: 0 * inf would be NaN.
// A thread takes one pixel of the result; as in reference.py it sums along the height first.
extern "C" __global__ void resample(const real *__restrict__ x, real *__restrict__ y, int64 planes, int64 H, int64 W,
                                    int64 OH, int64 OW, const int64 *__restrict__ rstarts,
                                    const int64 *__restrict__ rsources, const real *__restrict__ rweights,
                                    const int64 *__restrict__ cstarts, const int64 *__restrict__ csources,
                                    const real *__restrict__ cweights) {
    FOR_EACH(e, planes * OH * OW) {
        int64 j = e % OW, i = e / OW % OH;
        const real *plane = x + e / (OH * OW) * (H * W);
        real total = 0;
        for (int64 t = cstarts[j]; t < cstarts[j + 1]; t++) {
            real sum = 0;
            const real *column = plane + csources[t];
            for (int64 r = rstarts[i]; r < rstarts[i + 1]; r++) sum += rweights[r] * column[rsources[r] * W];
            total += cweights[t] * sum;
        }
        y[e] = total;
    }
}
