"""The resume point: master weights, optimizer moments and step; only the newest is kept.

Tensors are stored whole, under the names that the model has in one process, so a run goes on with any number
of processes. They pass through rank 0 one at a time and are written in files of bounded size.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dipscope.train.sharding import gather, scatter
from dipscope.train.world import current
from dipscope.workspace import as_umask_says, hash_file, hash_json, sync_folder, writing

FILE_BYTES = 2_000_000_000  # what rank 0 holds of a resume point at once, beside the largest tensor
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Resume:
    """The resume point of one run under `folder`, valid where all that decides the run is the same.

    Args:
        folder: holds the newest resume point.
        identity: what decides the run, by what it is called in a message, as hashes.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self.folder, self.identity = folder, dict(identity)

    @property
    def fingerprint(self) -> str:
        """One hash of all that decides the run."""
        return hash_json(self.identity)

    def save(self, model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Write the state after `step`, then drop the older one; all ranks must ask.

        Raises:
            DipscopeError: the disk refuses, on every rank; the older one stays.
        """
        world = current()
        target = self.folder / f"{step:06d}"
        temporary = self.folder / f".{step:06d}.{os.getpid()}.tmp"
        files: dict[str, str] = {}
        held: dict[str, torch.Tensor] = {}
        size = 0

        def begin() -> None:
            with writing(target):
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)

        def write() -> None:
            path = temporary / f"state{f'-{len(files) + 1}' if files else ''}.safetensors"
            with writing(target):
                save_file(held, path)
                files[path.name] = hash_file(path)

        def finish() -> None:
            write()
            with writing(target):
                beside = temporary / "state.json"
                beside.write_text(json.dumps({"identity": self.identity, "files": files}))
                as_umask_says_all(temporary, beside)
                sync_folder(temporary)
                shutil.rmtree(target, ignore_errors=True)  # one of the same step, of another identity
                temporary.rename(target)
                sync_folder(self.folder)
            for other in self.folder.iterdir():
                if other != target:
                    shutil.rmtree(other, ignore_errors=True)

        try:
            world.lead(begin)
            for name, value in _tensors(model, optimizer):
                weight = value.numel() * value.element_size()
                if size and size + weight > FILE_BYTES:
                    world.lead(write)
                    held.clear()
                    size = 0
                whole = gather(value)
                if world.leader:
                    held[name] = whole.cpu()
                size += weight
            world.lead(finish)
        finally:
            if world.leader:
                shutil.rmtree(temporary, ignore_errors=True)

    def find(self, on_note: Callable[[str], None]) -> int:
        """Step of the newest sound resume point of this run; 0, with a note, where it is not."""
        newest = max((int(p.name) for p in self.folder.glob("[0-9]*") if p.name.isdecimal()), default=0)
        if newest == 0:
            return 0
        point = self.folder / f"{newest:06d}"
        try:
            state = json.loads((point / "state.json").read_text())
            found = state["identity"]
            if other := [what for what, value in self.identity.items() if found.get(what) != value]:
                what = " and ".join(other)
                on_note(f"{point}: the resume point belongs to other {what}; training starts at step 1")
                return 0
            if any(hash_file(point / name) != digest for name, digest in state["files"].items()):
                raise ValueError("its checksum does not fit")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            on_note(f"{point}: the resume point is damaged ({error}); training starts at step 1")
            return 0
        return newest

    def load(self, model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Put the resume point of `step`, which `find` returned, into model and optimizer; on all ranks."""
        world = current()
        with ExitStack() as opened, torch.no_grad():
            stored: dict[str, Any] = {}
            if world.leader:
                for path in sorted((self.folder / f"{step:06d}").glob("*.safetensors")):
                    file = opened.enter_context(safe_open(path, "pt"))
                    stored |= dict.fromkeys(file.keys(), file)

            def put(target: torch.Tensor, name: str) -> torch.Tensor:
                scatter(target, stored[name].get_tensor(name) if world.leader else None, world)
                return target

            for name, parameter in _trained(model):
                put(parameter, f"weight/{name}")
                optimizer.state[parameter] = {
                    "step": put(torch.zeros((), device=parameter.device), f"step/{name}"),
                    "exp_avg": put(torch.zeros_like(parameter), f"exp_avg/{name}"),
                    "exp_avg_sq": put(torch.zeros_like(parameter), f"exp_avg_sq/{name}"),
                }

    def remove(self) -> None:
        """Drop the resume point of a finished run."""
        shutil.rmtree(self.folder, ignore_errors=True)


def as_umask_says_all(folder: Path, like: Path) -> None:
    """Give the files that safetensors made for their owner alone the mode of one that was simply opened."""
    for path in folder.glob("*.safetensors"):
        as_umask_says(path, like)


def _trained(model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


def _tensors(model: Any, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in _trained(model):
        yield f"weight/{name}", parameter.detach()
        for key in _MOMENTS:
            yield f"{key}/{name}", optimizer.state[parameter][key]
