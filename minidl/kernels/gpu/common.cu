// Shared by all kernels. They are compiled once for each element type, which is called `real`.
//
// Arrays are C-contiguous, and offsets are 64 bits wide. Each value of a result belongs to one thread, which computes
// it in a fixed order. There are no atomics, and only sums.cu has barriers: results do not depend on the number or
// order of the blocks, to the last bit.
//
// Most of the arithmetic is division by sizes. Where both numbers fit in 32 bits, the compiled code divides in 32 bits,
// which is cheap.
//
// Letters: N, C, O, H, W, OH, OW, KH, KW as in reference.py; s stride, p padding, d dilation, each followed by h (along
// the height) or w (along the width). `size` is the number of pixels of a plane where its shape does not matter.

typedef long long int64;

// A grid-stride loop: thread t takes the elements t, t + threads, t + 2 * threads, ... of n. Neighbouring threads have
// neighbouring elements, and any number of threads can process any n.
#define FOR_EACH(element, n)                                                        \
    for (int64 element = (int64)blockIdx.x * blockDim.x + threadIdx.x; element < (n); \
         element += (int64)gridDim.x * blockDim.x)

// The sizes of windows on images, of convolutions and of poolings.
#define WINDOWS                                                                    \
    int64 H, int64 W, int64 OH, int64 OW, int64 KH, int64 KW, int64 sh, int64 sw, \
        int64 ph, int64 pw, int64 dh, int64 dw
