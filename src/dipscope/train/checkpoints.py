"""Checkpoints in the Hugging Face layout: written whole, read back, marked complete, and dropped."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipscope.errors import DipscopeError
from dipscope.train.layout import Layout
from dipscope.weights import damaged, weights_hash
from dipscope.workspace import as_umask_says, hash_file, sync_folder, write_atomic, writing

if TYPE_CHECKING:
    import torch

    from dipscope.data.tokenize import Example
    from dipscope.study import Recipe

MARKER = "dipscope.json"
SHARD_BYTES = 5_000_000_000  # the Hub's own default: few files, none too large for it


def save(
    state: Mapping[str, torch.Tensor],
    layout: Layout,
    folder: Path,
    meta: Mapping[str, Any],
    shard_bytes: int = SHARD_BYTES,
) -> str:
    """Write a checkpoint so that it is either complete or not there.

    Nothing global is touched, so that it may run beside training.

    Args:
        state: the whole model by the names of `layout.shapes`, on the CPU in `layout.dtype`.
        layout: of the run.
        folder: where the checkpoint will stand; whatever stands there is replaced.
        meta: what the marker says besides the hashes.
        shard_bytes: a file of weights gets no longer than this, unless one tensor is.

    Returns:
        The hash of the weights.

    Raises:
        DipscopeError: the state is not of this layout, the disk refuses, or what was read back is not what
            was written.
    """
    _fits(state, layout, folder)
    before = _dropped(folder)  # trained again it should be the same, and says so where it is not
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        with writing(folder):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            stored = {name: value.contiguous() for name, value in layout.stored(state).items()}
            _write(stored, layout, temporary, shard_bytes)
            _read_back(stored, temporary)
            digest = weights_hash(temporary)
            files = {p.name: hash_file(p) for p in sorted(temporary.iterdir()) if p.suffix != ".safetensors"}
            marker = {**meta, "weights": digest, "files": files}
            if before and before["weights"] != digest:
                marker["replaces"] = before["weights"]
            (temporary / MARKER).write_text(json.dumps(marker, indent=1))
            sync_folder(temporary)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return digest


def _fits(state: Mapping[str, torch.Tensor], layout: Layout, folder: Path) -> None:
    """Raise where a state is not of the layout: other names, shapes, formats, or ties that are broken."""
    import torch

    wrong = sorted(state.keys() ^ layout.shapes.keys())
    wrong += [
        name
        for name, value in state.items()
        if tuple(value.shape) != layout.shapes.get(name)
        or (value.is_floating_point() and value.dtype != layout.dtype)
    ]
    wrong += [n for n, kept in layout.ties.items() if not wrong and not torch.equal(state[n], state[kept])]
    if wrong:
        raise DipscopeError(
            f"the weight '{wrong[0]}' is not as the model's layout has it", str(folder), fault=True
        )


def _write(stored: Mapping[str, torch.Tensor], layout: Layout, folder: Path, shard_bytes: int) -> None:
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    for name, content in layout.beside.items():
        (folder / name).write_bytes(content)
    split = split_torch_state_dict_into_shards(dict(stored), max_shard_size=shard_bytes)
    for name, tensors in split.filename_to_tensors.items():
        save_file({tensor: stored[tensor] for tensor in tensors}, folder / name, {"format": "pt"})
        as_umask_says(folder / name, folder / "config.json")
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text)


def _read_back(stored: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Compare the files with what was to be written, bit for bit, one tensor at a time."""
    import torch
    from safetensors import safe_open

    left = dict(stored)
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                found, written = file.get_tensor(name), left.pop(name)
                same = found.dtype == written.dtype and found.shape == written.shape
                if not same or not torch.equal(_bits(found), _bits(written)):
                    raise DipscopeError(
                        f"the weight '{name}' reads back different from what was written",
                        str(folder),
                        "Check the disk; then run again.",
                        fault=True,
                    )
    if left:
        raise DipscopeError(f"the weight '{min(left)}' was not written", str(folder), fault=True)


def _bits(value: torch.Tensor) -> torch.Tensor:
    import torch

    return value.flatten().view(torch.uint8)  # NaN is equal to itself here


def amounts(examples: Sequence[Example], recipe: Recipe, seed: int, step: int) -> dict[str, int]:
    """What a run has seen by the end of `step`: tokens put through the model, and those learned from."""
    from dipscope.train.packing import input_length
    from dipscope.train.schedule import rows_of_step

    tokens = supervised = 0
    for done in range(1, step + 1):
        for row in rows_of_step(seed, done, recipe.batch_size, len(examples), recipe.shuffle):
            tokens += input_length(examples[row])
            supervised += len(examples[row].target_ids)
    return {"tokens": tokens, "supervised": supervised}


def read_marker(folder: Path) -> dict[str, Any] | None:
    """The marker of a complete checkpoint; None where there is none.

    Raises:
        DipscopeError: the marker is damaged.
    """
    try:
        marker = json.loads((folder / MARKER).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise damaged(folder / MARKER, "is not JSON") from None
    if not isinstance(marker, dict) or not isinstance(marker.get("files"), dict) or "weights" not in marker:
        raise damaged(folder / MARKER, "is not the marker of a checkpoint")
    return marker


def verify(folder: Path) -> str:
    """Compare a checkpoint with its marker and return the hash of its weights.

    Raises:
        DipscopeError: it is incomplete, its weights were dropped, or something in it has changed.
    """
    marker = read_marker(folder)
    if marker is None:
        raise damaged(folder, "is incomplete: it has no marker")
    if "dropped" in marker:
        raise damaged(folder, "holds no weights any more: they were dropped when all was measured")
    for name, expected in marker["files"].items():
        path = folder / name
        if not path.is_file() or hash_file(path) != expected:
            raise damaged(path, "is missing or has changed")
    digest = weights_hash(folder)
    if digest != marker["weights"]:
        raise damaged(folder, "has other weights than its marker says")
    return digest


def is_done(folder: Path, fingerprint: str) -> bool:
    """Whether nothing has to be trained for a checkpoint: it is whole, or was dropped and nobody wants it."""
    try:
        marker = read_marker(folder)
        if marker is None or marker.get("fingerprint") != fingerprint:
            return False
        if "dropped" in marker:
            return bool(marker["dropped"] != "wanted")
        verify(folder)
    except DipscopeError:
        return False
    return True


def drop(folder: Path) -> None:
    """Delete all of a checkpoint but its marker, which then says that it was dropped.

    The marker is rewritten first: a crash on the way leaves a dropped checkpoint with files that the next
    call removes.

    Raises:
        DipscopeError: there is no sound marker, or it cannot be written.
        OSError: a file cannot be deleted.
    """
    marker = read_marker(folder)
    if marker is None:
        raise damaged(folder, "is incomplete: it has no marker")
    if "dropped" not in marker:
        write_atomic(folder / MARKER, json.dumps(marker | {"dropped": "measured"}, indent=1))
    for path in folder.iterdir():
        if path.name != MARKER:
            path.unlink()


def holds_files(folder: Path) -> bool:
    """Whether anything but a marker stands in the folder of a checkpoint."""
    return folder.is_dir() and any(path.name != MARKER for path in folder.iterdir())


def want(folder: Path) -> bool:
    """Ask for a checkpoint to be trained again if its weights were dropped; whether they were.

    Its marker stays, so that the new weights can be compared with the old.
    """
    marker = _dropped(folder)
    if marker is not None:
        write_atomic(folder / MARKER, json.dumps(marker | {"dropped": "wanted"}, indent=1))
    return marker is not None


def _dropped(folder: Path) -> dict[str, Any] | None:
    """The marker of a dropped checkpoint; None where it is none."""
    try:
        marker = read_marker(folder)
    except DipscopeError:
        return None
    return marker if marker is not None and "dropped" in marker else None
