"""The threads that prepare a loader's batches in advance."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

END = object()  # returned by a task of a thread that has nothing more to do
Turn = tuple[ThreadPoolExecutor, Callable[[Any], Any]]
_this_thread = threading.local()


@dataclass(frozen=True)
class WorkerInfo:
    """A worker thread of a `DataLoader`: what `get_worker_info` returns in it.

    Attributes
    ----------
    id : int
        From 0 to ``num_workers - 1``.
    num_workers : int
    seed : int
        For a generator of the worker's own: the workers' seeds are consecutive and follow from the state of the
        loader's generator, which they do not change.
    dataset : data set
        The loader's; if it is iterable, a shallow copy that this worker alone uses.
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any


def get_worker_info() -> WorkerInfo | None:
    """Return the `WorkerInfo` of the thread that runs this, or None outside of a `DataLoader`'s workers."""
    return getattr(_this_thread, "info", None)


class Workers:
    """Threads that take turns, so that thread k runs every n-th task and nobody else runs those.

    Parameters
    ----------
    infos : sequence of WorkerInfo
        One for each thread.
    init : callable, optional
        Called with a worker's id, first of all in its thread.
    persistent : bool
        The threads stay when an iteration ends; they end with this object.
    ahead : int
        How many tasks may run or wait beside the one whose result is asked for.
    timeout : float
        Seconds to wait for a result; 0 for ever.
    """

    def __init__(
        self,
        infos: Sequence[WorkerInfo],
        init: Callable[[int], Any] | None,
        persistent: bool,
        ahead: int,
        timeout: float,
    ) -> None:
        self.infos, self.init, self.persistent = infos, init, persistent
        self.ahead, self.timeout = ahead, timeout
        self.threads: list[ThreadPoolExecutor] = []
        self.started: list[Future[None]] = []

    def run(self, tasks: Sequence[Callable[[Any], Any]], inputs: Iterable[Any]) -> Iterator[Any]:
        """Yield ``tasks[k](x)``, run in thread k, for one x after another; k takes turns until its task returns END."""
        waiting: deque[tuple[Turn, Future[Any]]] = deque()
        try:
            self._start()
            turns = deque(zip(self.threads, tasks, strict=True))
            for x in inputs:
                thread, task = turns[0]
                waiting.append((turns[0], thread.submit(task, x)))
                turns.rotate(-1)
                yield from self._finished(waiting, turns, self.ahead)
                if not turns:
                    break
            yield from self._finished(waiting, turns, 0)
        finally:  # also after a break in the consumer's loop: Python closes a generator that is no longer referenced
            self._stop(waiting)

    def _start(self) -> None:
        if not self.threads:
            self.threads = [ThreadPoolExecutor(1, thread_name_prefix="minidl-loader") for _ in self.infos]
            pairs = zip(self.threads, self.infos, strict=True)
            self.started = [thread.submit(_introduce, info, self.init) for thread, info in pairs]
        for start in self.started:
            self._result(start)

    def _finished(self, waiting: deque[tuple[Turn, Future[Any]]], turns: deque[Turn], left: int) -> Iterator[Any]:
        """The results, in order, of all but `left` tasks; whoever is at its end has no more turns."""
        while len(waiting) > left:
            turn, future = waiting.popleft()
            result = self._result(future)
            if result is not END:
                yield result
            elif turn in turns:
                turns.remove(turn)

    def _result(self, future: Future[Any]) -> Any:
        try:
            return future.result(self.timeout or None)
        except TimeoutError:
            if future.done():  # the data set's own
                raise
            raise RuntimeError(f"DataLoader timed out after {self.timeout} seconds") from None

    def _stop(self, waiting: Iterable[tuple[Turn, Future[Any]]]) -> None:
        for _, future in waiting:
            future.cancel()
        if not self.persistent:
            for thread in self.threads:
                thread.shutdown(wait=not self.timeout, cancel_futures=True)  # a task that timed out may never end
            self.threads = []


def _introduce(info: WorkerInfo, init: Callable[[int], Any] | None) -> None:
    _this_thread.info = info
    if init is not None:
        init(info.id)
