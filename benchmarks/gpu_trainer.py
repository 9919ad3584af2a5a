"""The workloads of models.py on a GPU, in minidl and PyTorch, for the workers of train_step.py --device cuda."""

import ctypes
import hashlib
import importlib
import sys
from typing import Any

import numpy as np
import train_step

KERNEL_NODE = 0  # CU_GRAPH_NODE_TYPE_KERNEL of the driver API


def start(library: str, device: str, **options: Any) -> Any:
    """The object to be measured in this process."""
    return Sgemm() if library == "sgemm" else Trainer(library, **options)


def on_gpu(x: Any) -> Any:
    """A tensor or a model, moved to the GPU."""
    return x.to("cuda")


class Trainer(train_step.Trainer):
    """A workload on a GPU. A step ends with a synchronisation, so that the clock may be read after it."""

    def __init__(self, library: str, name: str, batch: int, threads: int, check: bool) -> None:
        if train_step.LIBRARIES[library] == "torch":
            without_tf32()
        super().__init__(library, name, batch, threads, check)
        self.recorded = None
        if library == "minidl_captured":
            self.recorded = self.train = self.m.cuda.capture(self.train)  # type: ignore[method-assign]

    def _placed(self, x: Any) -> Any:
        return on_gpu(super()._placed(x))

    def _tensor(self, array: np.ndarray | None) -> Any:
        if array is None:
            return None
        return (self._placed if array.ndim == 4 else on_gpu)(self.m.tensor(array))

    def step(self, i: int) -> Any:
        batch = self.batches[i % len(self.batches)]
        loss = self.train(*(x for x in batch if x is not None))  # a recorded step only takes tensors
        self.m.cuda.synchronize()
        return loss

    def digest(self, steps: int) -> list[str]:
        """Hashes of a seeded run's losses and final parameters, to compare runs bit by bit."""
        self.m.manual_seed(0)
        losses = np.array([self.step(i).item() for i in range(steps)])
        state = self.model.state_dict().values()
        parameters = b"".join(value.detach().cpu().numpy().tobytes() for value in state)
        return [hashlib.sha256(data).hexdigest() for data in (losses.tobytes(), parameters)]

    def figures(self) -> dict[str, Any]:
        """The peak GPU memory held by the library's pools, and the number of kernels in a recorded step."""
        if self.m.__name__ == "torch":
            return {"peak": self.m.cuda.max_memory_reserved() / 2**20}
        held = importlib.import_module("cupy").get_default_memory_pool().total_bytes()
        if self.recorded is None:
            return {"peak": held / 2**20}
        held += self.recorded.pool.total_bytes()
        return {"peak": held / 2**20, "kernels": kernels_of(self.recorded.graph)}


class Sgemm:
    """The GPU's speed: a product of two matrices by cuBLAS."""

    def __init__(self) -> None:
        self.m = importlib.import_module("minidl")
        side = train_step.SIDE["cuda"]
        self.a = self.m.rand(side, side, device="cuda")  # not ones: on ones a GPU draws less power and runs faster

    def step(self, i: int) -> Any:
        product = self.a @ self.a
        self.m.cuda.synchronize()
        return product


def without_tf32() -> None:
    """Make PyTorch compute in float32; by default cuDNN's convolutions use TF32."""
    torch = importlib.import_module("torch")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def kernels_of(graph: Any) -> int:
    """The number of kernels that a CuPy graph launches, from the driver, since CuPy does not expose it."""
    driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    handle, count = ctypes.c_void_p(graph.graph), ctypes.c_size_t()
    _check(driver.cuGraphGetNodes(handle, None, ctypes.byref(count)))
    nodes = (ctypes.c_void_p * count.value)()
    _check(driver.cuGraphGetNodes(handle, nodes, ctypes.byref(count)))
    return sum(_kind(driver, node) == KERNEL_NODE for node in nodes)


def _kind(driver: Any, node: int | None) -> int:
    kind = ctypes.c_int(-1)
    _check(driver.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind)))
    return kind.value


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"the CUDA driver could not list what is in a graph: error {status}")
