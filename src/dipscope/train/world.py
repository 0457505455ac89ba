"""The processes that train one model together: who they are, and how they agree."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from dipscope.errors import DipscopeError

T = TypeVar("T")

# How long a process waits for the others. It only bounds a hang: who dies is noticed at once by whoever
# started it (train/launch.py, torchrun). The first process may hash many checkpoints before it goes on.
TIMEOUT = timedelta(hours=1)


@dataclass(frozen=True)
class World:
    """The ranks of a run, seen from one of them.

    Attributes:
        rank: which one this process is, from 0; rank 0 leads: it alone writes and tells.
        size: how many there are.
        device: what this one computes on.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def leader(self) -> bool:
        """Whether this process writes files and tells the reader."""
        return self.rank == 0

    def lead(self, work: Callable[[], T]) -> T:
        """Let rank 0 do something; every rank gets its result, or the error it ended with.

        Raises:
            DipscopeError: what `work` raised, on every rank.
        """
        if self.size == 1:
            return work()
        told: list[Any] = [None, None]
        if self.leader:
            try:
                told[0] = work()
            except DipscopeError as error:
                told[1] = error
        dist.broadcast_object_list(told, 0)
        if told[1] is not None:
            raise told[1]
        result: T = told[0]
        return result

    def agreed(self, objection: str) -> str:
        """The first objection that any rank has, or "", the same on every rank; all must ask."""
        if self.size == 1:
            return objection
        said = [""] * self.size
        dist.all_gather_object(said, objection)
        return next(filter(None, said), "")


def current() -> World:
    """The world that this process has joined; one of its own where it has joined none."""
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    if not dist.is_initialized():
        return World(0, 1, device)
    return World(dist.get_rank(), dist.get_world_size(), device)


@contextmanager
def joined(
    rank: int | None = None,
    size: int | None = None,
    local: int | None = None,
    store: Store | None = None,
) -> Iterator[World]:
    """Be one rank of a process group for the time of a with-block.

    NCCL connects GPUs; gloo connects processors, and carries what the ranks tell each other beside tensors.
    A world of one has no process group.

    Args:
        rank: which rank; from torchrun's environment where it is not said, as are the others.
        size: ranks in all.
        local: which rank of this machine: its number is that of its GPU.
        store: where the ranks meet; torchrun's where it is not said.

    Raises:
        DipscopeError: this machine has no GPU left for this rank.
    """
    rank = int(os.environ.get("RANK", "0")) if rank is None else rank
    size = int(os.environ.get("WORLD_SIZE", "1")) if size is None else size
    local = int(os.environ.get("LOCAL_RANK", "0")) if local is None else local
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus:
        if local >= gpus:
            what = f"{local + 1} processes are to train on this machine, which has {gpus} GPUs"
            raise DipscopeError(what, "train", "Start one process a GPU.")
        torch.cuda.init()  # type: ignore[no-untyped-call]  # else the device mesh would choose a GPU
        torch.cuda.set_device(local)
    if size == 1:
        yield current()
        return
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    yield current()
    # Not after an error: the others may be gone, and to part in order would mean to wait for them.
    dist.destroy_process_group()
