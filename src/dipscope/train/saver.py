"""Saving beside training: the training thread makes a copy of the weights, another thread writes it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from dipscope.train import checkpoints
from dipscope.train.layout import Layout


class Saver:
    """Writes the checkpoints of a run, at most one at a time.

    A context manager: leaving it waits for the write under way, so that nothing half written is left behind.
    A failure to write is raised by the next `save` or `wait`; where the block is left by another exception,
    that one is raised, since it came first.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._under_way: Future[str] | None = None
        self._copy: dict[str, torch.Tensor] = {}

    def save(
        self, state: Mapping[str, torch.Tensor], folder: Path, meta: Mapping[str, Any], *, given: bool = False
    ) -> None:
        """Begin to write a checkpoint; returns when the weights are copied and training may change them.

        Args:
            state: the whole model by name, on any device; names that share a tensor may share it here.
            folder: where the checkpoint will stand.
            meta: for the marker; see `checkpoints.save`.
            given: `state` lies on the CPU in the layout's format and nobody will change it: it is not copied.

        Raises:
            DipscopeError: the checkpoint before this one could not be written.
        """
        self.wait()
        snapshot = dict(state) if given else self._copied(state)
        self._under_way = self._writer.submit(checkpoints.save, snapshot, self.layout, folder, dict(meta))

    def wait(self) -> None:
        """Return when the last checkpoint stands complete on the disk.

        Raises:
            DipscopeError: it could not be written.
        """
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown()
        if kind is None:
            self.wait()

    def _copied(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A copy on the CPU in the format of the files.

        Its memory is kept for the next one: new pages cost more than the copy, and pinned ones much more.
        """
        ties, waiting = self.layout.ties, False
        for name, value in state.items():
            if name in ties:
                continue
            if name not in self._copy:
                dtype = self.layout.dtype if value.is_floating_point() else value.dtype
                self._copy[name] = torch.empty(value.shape, dtype=dtype, pin_memory=value.is_cuda)
            self._copy[name].copy_(value.detach(), non_blocking=value.is_cuda)
            waiting |= value.is_cuda
        if waiting:
            torch.cuda.synchronize()
        return {name: self._copy[ties.get(name, name)] for name in state}
