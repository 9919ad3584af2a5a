"""The kernels compiled with Numba, for float32 and float64 arrays, on all cores. Only this folder imports Numba.

    tile.py          the inner tile of all products, in LLVM's language
    products.py      matrix products in blocks: `matmul`, and what convolutions call
    convolution.py   im2col without writing the matrix down
    depthwise.py     convolution with one channel in each group
    pooling.py       pooling, unpooling, interpolation
    elementwise.py   activations, cross-entropy, the gradients of losses
    sums.py          sums, losses, normalisation
    optimisers.py    the steps of Adam and SGD

Files with an underscore serve these: compiling and its cache, threads, vectors in LLVM's language, memory order.
"""

from minidl.kernels.cpu import convolution, depthwise, elementwise, optimisers, pooling, products, sums

MODULES = convolution, depthwise, elementwise, optimisers, pooling, products, sums
