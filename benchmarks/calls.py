"""The number of Python calls in one training step: what a reader stepping through it with a debugger goes through.

    python benchmarks/calls.py

counts, for each leg of a step, the calls of minidl's functions, the distinct functions among them, the files they are
in and their nesting depth. The model is an autoencoder of four layers (Conv2d, ReLU, ConvTranspose2d, Sigmoid) on two
8x8 images. The JIT is off, as compiled code makes no Python calls; the calls outside `kernels/` are the same with it.
"""

import os

os.environ["NUMBA_DISABLE_JIT"] = "1"  # before Numba is imported

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import minidl
from minidl import nn, optim
from minidl.data import DataLoader, TensorDataset, random_split

ROOT = str(Path(minidl.__file__).parent) + os.sep
KERNELS = os.path.join(ROOT, "kernels") + os.sep


class Calls:
    """The calls of minidl's functions while one leg of the step runs."""

    def __init__(self, leg: str) -> None:
        self.leg, self.count, self.depth = leg, Counter[CodeType](), 0
        self._open = 0

    def _notice(self, frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "return") and frame.f_code.co_filename.startswith(ROOT):
            self._open += 1 if event == "call" else -1
            self.count[frame.f_code] += event == "call"
            self.depth = max(self.depth, self._open)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count this thread's calls inside the context."""
        sys.setprofile(self._notice)
        try:
            yield
        finally:
            sys.setprofile(None)

    def row(self) -> tuple[str, int, int, int, int, int]:
        """Leg, calls outside kernels/, total calls, functions, files, depth."""
        outside = sum(n for code, n in self.count.items() if not code.co_filename.startswith(KERNELS))
        files = {code.co_filename for code in self.count}
        return self.leg, outside, self.count.total(), len(self.count), len(files), self.depth


def count_step() -> list[Calls]:
    """Count the legs of the second training step, since the first fills caches."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),  # (N, 1, 8, 8) -> (N, 4, 4, 4)
        nn.ReLU(),
        nn.ConvTranspose2d(4, 1, 3, stride=2, padding=1, output_padding=1),
        nn.Sigmoid(),
    )
    optimizer = optim.Adam(model.parameters())
    images, _ = random_split(TensorDataset(minidl.rand(4, 1, 8, 8)), [2, 2])
    loader = DataLoader(images, batch_size=2)
    for _ in range(2):
        legs = [Calls(name) for name in ("batch", "zero_grad", "forward", "MSE", "backward", "Adam.step")]
        batch, zero_grad, forward, mse, backward, step = legs
        with batch.counted():
            (x,) = next(iter(loader))
        with zero_grad.counted():
            optimizer.zero_grad()
        with forward.counted():
            y = model(x)
        with mse.counted():
            loss = nn.functional.mse_loss(y, x)
        with backward.counted():
            loss.backward()
        with step.counted():
            optimizer.step()
    return legs


def main() -> None:
    legs = count_step()
    whole = Calls("whole step")
    for leg in legs:
        whole.count += leg.count
        whole.depth = max(whole.depth, leg.depth)
    print(f"{'leg':<12}{'outside kernels/':>18}{'in all':>8}{'functions':>11}{'files':>7}{'depth':>7}")
    for name, outside, calls, functions, files, depth in (leg.row() for leg in [*legs, whole]):
        print(f"{name:<12}{outside:>18}{calls:>8}{functions:>11}{files:>7}{depth:>7}")


if __name__ == "__main__":
    main()
