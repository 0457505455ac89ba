"""Checkpoints in the Hugging Face layout: written whole, loaded back, marked complete."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipscope.errors import DipscopeError
from dipscope.weights import damaged, weights_hash
from dipscope.workspace import as_umask_says, hash_file, sync_folder, write_atomic, writing

if TYPE_CHECKING:
    import torch

MARKER = "dipscope.json"
_BESIDE = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip


def save(model: Any, source: Path, folder: Path, meta: Mapping[str, Any], dtype: torch.dtype) -> str:
    """Write a checkpoint so that it is either complete or not there.

    Args:
        model: transformers model; its weights are rounded to `dtype` in the files only.
        source: directory whose tokenizer and generation settings go along.
        folder: where the checkpoint will stand; an incomplete one there is replaced.
        meta: what the marker says besides the hash of the weights.
        dtype: number format in the files.

    Returns:
        The hash of the weights.

    Raises:
        DipscopeError: the disk refuses, or what was read back is not what was written.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        with writing(folder):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            weights = _rounded(model, dtype)
            model.save_pretrained(temporary, state_dict=dict(weights))  # it drops tied names from the dict
            config = temporary / "config.json"
            settings = json.loads(config.read_text()) | {"dtype": str(dtype).removeprefix("torch.")}
            config.write_text(json.dumps(settings, indent=2) + "\n")
            for shard in temporary.glob("*.safetensors"):
                as_umask_says(shard, config)
            for name in _BESIDE:
                if (source / name).is_file():
                    shutil.copyfile(source / name, temporary / name)
            _load_back(model, temporary, weights, dtype)
            sync_folder(temporary)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    digest = weights_hash(folder)
    files = {p.name: hash_file(p) for p in sorted(folder.iterdir()) if p.suffix != ".safetensors"}
    write_atomic(folder / MARKER, json.dumps({**meta, "weights": digest, "files": files}, indent=1))
    return digest


def _rounded(model: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The state of a model in `dtype`; names that share a tensor still share it, so ties are kept."""
    rounded: dict[int, torch.Tensor] = {}
    state = {}
    for name, value in model.state_dict().items():
        if value.data_ptr() not in rounded:
            value = value.detach()
            rounded[value.data_ptr()] = value.to(dtype) if value.is_floating_point() else value
        state[name] = rounded[value.data_ptr()]
    return state


def _load_back(model: Any, folder: Path, weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> None:
    import torch

    reloaded = type(model).from_pretrained(folder, dtype=dtype)
    loaded = reloaded.state_dict()
    if loaded.keys() != weights.keys() or len(list(reloaded.parameters())) != len(list(model.parameters())):
        raise DipscopeError(
            "the weights read back have other names or ties than the model",
            str(folder),
            "Check tie_word_embeddings in the model's config.",
            fault=True,
        )
    for name, value in weights.items():
        if not torch.equal(loaded[name], value.cpu()):
            raise DipscopeError(
                f"the weight '{name}' reads back different from what was written",
                str(folder),
                "Check the disk; then run again.",
                fault=True,
            )


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
        DipscopeError: it is incomplete, or something in it has changed.
    """
    marker = read_marker(folder)
    if marker is None:
        raise damaged(folder, "is incomplete: it has no marker")
    for name, expected in marker["files"].items():
        path = folder / name
        if not path.is_file() or hash_file(path) != expected:
            raise damaged(path, "is missing or has changed")
    digest = weights_hash(folder)
    if digest != marker["weights"]:
        raise damaged(folder, "has other weights than its marker says")
    return digest
