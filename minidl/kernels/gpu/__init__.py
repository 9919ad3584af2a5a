"""The kernels for arrays of CuPy, on a GPU: kernels.py, which calls the CUDA C of the *.cu files and cuBLAS."""
