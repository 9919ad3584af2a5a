// The gradient of indexing. Also for integers.

// y[places[r]] += values[r] for r = 0, 1, ..., count - 1, in this order if a place occurs several times.
// `order` sorts the places, equal ones by r, so that the values of a place form a run. The thread at the head of a run
// adds up all of it.
extern "C" __global__ void add_runs(real *__restrict__ y, const int64 *__restrict__ places,
                                    const int64 *__restrict__ order, const real *__restrict__ values, int64 count) {
    FOR_EACH(e, count) {
        int64 place = places[order[e]];
        if (e > 0 && places[order[e - 1]] == place) continue;
        real sum = y[place];
        for (int64 r = e; r < count && places[order[r]] == place; r++) sum += values[order[r]];
        y[place] = sum;
    }
}
