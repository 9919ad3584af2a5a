"""The kernels compiled with Numba, for float32 and float64 arrays, on all cores. Only this folder imports Numba.

    tile.py          the inner tile of all products, in LLVM's language
    products.py      matrix products in blocks: `matmul`, and what convolutions call
    convolution.py   im2col without writing the matrix down
    depthwise.py     convolution with one channel in each group
    pooling.py elementwise.py cross_entropy.py norms.py sums.py optimisers.py

Files with an underscore serve these: compiling and its cache, threads, vectors in LLVM's language, memory order.
"""

from minidl.kernels.cpu import (  # isort: skip
    convolution, cross_entropy, depthwise, elementwise, norms, optimisers, pooling, products, sums,
)  # fmt: skip

MODULES = convolution, cross_entropy, depthwise, elementwise, norms, optimisers, pooling, products, sums
