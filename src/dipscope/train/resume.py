"""The resume point: master weights, optimizer moments and step; only the newest is kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from dipscope.workspace import as_umask_says, hash_file, sync_folder, writing

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Resume:
    """The resume point of one run under `folder`, valid for the settings with this fingerprint."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint

    def save(self, model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Write the state after `step`, then drop the older one.

        Raises:
            DipscopeError: the disk refuses; the older one stays.
        """
        target = self.folder / f"{step:06d}"
        temporary = self.folder / f".{step:06d}.{os.getpid()}.tmp"
        try:
            with writing(target):
                shutil.rmtree(temporary, ignore_errors=True)
                shutil.rmtree(target, ignore_errors=True)
                temporary.mkdir(parents=True)
                stored, beside = temporary / "state.safetensors", temporary / "state.json"
                save_file({name: value.cpu() for name, value in _tensors(model, optimizer).items()}, stored)
                beside.write_text(json.dumps({"fingerprint": self.fingerprint, "sha256": hash_file(stored)}))
                as_umask_says(stored, beside)
                sync_folder(temporary)
                temporary.rename(target)
                sync_folder(self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for other in self.folder.iterdir():
            if other != target:
                shutil.rmtree(other, ignore_errors=True)

    def find(self, on_note: Callable[[str], None]) -> int:
        """Step of the newest sound resume point for these settings; 0, with a note, where it is not."""
        newest = max((int(p.name) for p in self.folder.glob("[0-9]*") if p.name.isdecimal()), default=0)
        if newest == 0:
            return 0
        point = self.folder / f"{newest:06d}"
        try:
            state = json.loads((point / "state.json").read_text())
            if state["fingerprint"] != self.fingerprint:
                on_note(f"{point}: the resume point belongs to other settings; training starts at step 1")
                return 0
            if hash_file(point / "state.safetensors") != state["sha256"]:
                raise ValueError("its checksum does not fit")
        except (OSError, ValueError, KeyError, TypeError) as error:
            on_note(f"{point}: the resume point is damaged ({error}); training starts at step 1")
            return 0
        return newest

    def load(self, model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Put the resume point of `step`, which `find` returned, into model and optimizer."""
        stored = load_file(self.folder / f"{step:06d}" / "state.safetensors")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(stored[f"weight/{name}"])
                optimizer.state[parameter] = {
                    key: stored[f"{key}/{name}"].to(parameter.device) for key in _MOMENTS
                }

    def remove(self) -> None:
        """Drop the resume point of a finished run."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _tensors(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"weight/{name}"] = parameter.detach()
        for key in _MOMENTS:
            tensors[f"{key}/{name}"] = optimizer.state[parameter][key]
    return tensors
