"""The workloads of models.py on a GPU, in minidl and PyTorch: what a worker of train_step.py --device cuda runs."""

import ctypes
import hashlib
import importlib
import sys
from typing import Any

import numpy as np
import train_step

KERNEL_NODE = 0  # what the driver calls CU_GRAPH_NODE_TYPE_KERNEL


def start(library: str, device: str, **options: Any) -> Any:
    """What is to be measured in this process."""
    return Sgemm() if library == "sgemm" else Trainer(library, **options)


def on_gpu(x: Any) -> Any:
    """A tensor or a model, moved to the GPU."""
    return x.to("cuda")


class Trainer(train_step.Trainer):
    """A workload on a GPU. A step is over when the GPU has done all of it, so that a clock may be read then."""

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
        loss = self.train(*(x for x in batch if x is not None))  # a recorded step takes nothing but tensors
        self.m.cuda.synchronize()
        return loss

    def digest(self, steps: int) -> list[str]:
        """What a run with a seed comes to, bit by bit: hashes of its losses and of the parameters after it."""
        self.m.manual_seed(0)
        losses = np.array([self.step(i).item() for i in range(steps)])
        state = self.model.state_dict().values()
        parameters = b"".join(value.detach().cpu().numpy().tobytes() for value in state)
        return [hashlib.sha256(data).hexdigest() for data in (losses.tobytes(), parameters)]

    def figures(self) -> dict[str, Any]:
        """The most memory of the GPU that the library's pools ever held, and the kernels of a recorded step."""
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
        self.a = self.m.rand(side, side, device="cuda")  # of ones a GPU takes less power, and runs faster

    def step(self, i: int) -> Any:
        product = self.a @ self.a
        self.m.cuda.synchronize()
        return product


def without_tf32() -> None:
    """Let PyTorch compute in float32; cuDNN's convolutions do not unless told."""
    torch = importlib.import_module("torch")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def kernels_of(graph: Any) -> int:
    """How many kernels a graph of CuPy's launches. CuPy does not say; the driver does."""
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
        raise RuntimeError(f"the CUDA driver cannot tell what is in a graph: error {status}")
