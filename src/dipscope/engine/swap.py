"""Putting a checkpoint's tensors in place, and the proof that the decoder now holds exactly those.

Swaps that go silently wrong are known from every engine that reloads weights, so each one is checked: on the
first use of an architecture, log-probabilities of canary prompts against a transformers forward; on every
swap, each tensor in place against the file read a second time, and the canaries against those of the
checkpoint before, which must differ unless the weights are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dipscope.engine.base import ScoreRequest
from dipscope.errors import DipscopeError
from dipscope.weights import WeightsDigest


@dataclass(frozen=True)
class SwapReport:
    """How a checkpoint was verified after it was put in place.

    `reference_error` is the largest canary difference in nats from the transformers forward, None where the
    architecture had been compared before; `changed` says whether the canaries moved against the checkpoint
    before, None for the first one; `row_invariant` whether the products were found to give a row the same
    bits in any batch (otherwise the engine keeps to fixed shapes).
    """

    checkpoint: str
    weights_hash: str
    tensors: int
    reference_error: float | None
    changed: bool | None
    row_invariant: bool
    seconds: float


class TensorFiles:
    """The tensors of a checkpoint directory: one safetensors file, or shards with an index.

    Raises:
        DipscopeError: a file is missing or damaged; it is named.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        index = checkpoint / "model.safetensors.index.json"
        if index.is_file():
            try:
                listed: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise self._damaged(index, error) from None
            files = sorted(set(listed.values()))
        else:
            listed, files = {}, ["model.safetensors"]
        self.file_of: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        for file in files:
            path = checkpoint / file
            if not path.is_file():
                raise DipscopeError(
                    f"the checkpoint has no {file}", str(checkpoint), "Save or fetch it again."
                )
            try:
                self._open[path] = safe_open(path, framework="pt")
                self.file_of |= dict.fromkeys(self._open[path].keys(), path)
            except (SafetensorError, OSError) as error:
                raise self._damaged(path, error) from None
        for name, file in listed.items():
            if name not in self.file_of:
                raise DipscopeError(f"tensor {name} is missing", str(checkpoint / file), "Save it again.")

    def read(self, name: str) -> Tensor:
        """One tensor, as stored."""
        try:
            tensor: Tensor = self._open[self.file_of[name]].get_tensor(name)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise self._damaged(self.file_of[name], error, f", tensor {name}") from None
        return tensor

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, without reading it."""
        return tuple(self._open[self.file_of[name]].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """Format of one tensor as safetensors names it."""
        return str(self._open[self.file_of[name]].get_slice(name).get_dtype())

    @staticmethod
    def _damaged(path: Path, error: Exception, what: str = "") -> DipscopeError:
        return DipscopeError(f"the file is damaged{what} ({error})", str(path), "Save or fetch it again.")


def check_names(files: TensorFiles, places: Mapping[str, list[Tensor]]) -> None:
    """See that the files hold every tensor of the architecture, in its shape, and nothing unknown.

    Raises:
        DipscopeError: naming file and tensor.
    """
    fix = "The weights do not belong to this config.json: save or fetch the checkpoint again."
    for name, views in places.items():
        if name not in files.file_of:
            raise DipscopeError(f"tensor {name} is missing", str(files.checkpoint), fix)
        expected = tuple(views[0].shape)
        if files.shape(name) != expected:
            what = f"tensor {name} has shape {files.shape(name)}, expected {expected}"
            raise DipscopeError(what, str(files.file_of[name]), fix)
    for name in sorted(files.file_of.keys() - places.keys()):
        if name == "lm_head.weight":  # tied, and saved all the same: harmless only if it is the embedding
            if torch.equal(files.read(name), files.read("model.embed_tokens.weight")):
                continue
            raise DipscopeError(
                "the head is tied but differs from the embedding", str(files.file_of[name]), fix
            )
        if not name.endswith("rotary_emb.inv_freq"):
            raise DipscopeError(f"unknown tensor {name}", str(files.file_of[name]), fix)


def put(files: TensorFiles, places: Mapping[str, list[Tensor]]) -> None:
    """Copy every tensor of the files into its places, converting dtype and device."""
    for name, views in places.items():
        tensor = files.read(name)
        for view in views:
            view.copy_(tensor)


def verify_tensors(checkpoint: Path, places: Mapping[str, list[Tensor]]) -> str:
    """Read the files once more and compare every tensor in place with them, bit for bit.

    Returns:
        The weights' hash, as `weights.weights_hash` gives it, from the same reading.

    Raises:
        DipscopeError: naming the first tensor that differs.
    """
    files, digest = TensorFiles(checkpoint), WeightsDigest()
    for name in sorted(files.file_of):
        source = _digested(files, name, digest)
        for view in places.get(name, ()):
            # bit for bit, so that a NaN equals itself
            expected, held = source.to(view.device, view.dtype).contiguous(), view.contiguous()
            if not torch.equal(expected.view(torch.uint8), held.view(torch.uint8)):
                raise failed(checkpoint, f"tensor {name} in the engine is not the one in the file")
    return digest.hexdigest()


def _digested(files: TensorFiles, name: str, digest: WeightsDigest) -> Tensor:
    tensor = files.read(name).contiguous()
    digest.begin(name, files.dtype(name), tensor.shape)
    digest.data(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return tensor


def canaries(vocab: int) -> list[ScoreRequest]:
    """Sixteen fixed pseudo-random prompts of 8 tokens, each with 4 tokens to score."""
    ids = np.random.default_rng(0).integers(0, vocab, size=(16, 12)).tolist()
    return [ScoreRequest(str(i), tuple(row[:8]), tuple(row[8:])) for i, row in enumerate(ids)]


def reference(checkpoint: Path, device: torch.device, dtype: torch.dtype, vocab: int) -> Tensor:
    """Canary log-probabilities (16, 4) by transformers, which shares no code with the engine."""
    import transformers

    logging: Any = transformers.utils.logging
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype=dtype, attn_implementation="eager", local_files_only=True
        )
    finally:
        if bars:
            logging.enable_progress_bar()
    ids = torch.tensor([request.prompt_ids + request.continuation_ids for request in canaries(vocab)])
    with torch.inference_mode():
        logprobs: Tensor = (
            model.to(device)(ids.to(device), use_cache=False).logits.float().log_softmax(-1).cpu()
        )
    return logprobs[:, 7:11].gather(2, ids[:, 8:, None]).squeeze(2)


def compare_reference(checkpoint: Path, ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> float:
    """Largest canary difference in nats.

    Raises:
        DipscopeError: the difference is more than rounding in `dtype` explains.
    """
    finite = ours.isfinite()
    if not torch.equal(finite, theirs.isfinite()):
        raise failed(checkpoint, "canary log-probabilities are finite on one side only")
    difference = (ours - theirs)[finite].abs()
    error = float(difference.max()) if len(difference) else 0.0
    # bfloat16 rounds single log-probabilities by tenths of a nat; wrong weights move them by whole ones
    if error > 1e-3 if dtype == torch.float32 else error > 0 and float(difference.mean()) > 0.25:
        raise failed(checkpoint, f"canary log-probabilities differ from transformers by {error:.3g} nats")
    return error


def failed(checkpoint: Path, what: str) -> DipscopeError:
    """The error of a swap that did not pass its checks."""
    fix = "The engine was emptied; run again, and report it if it happens twice."
    return DipscopeError(f"weight swap failed: {what}", str(checkpoint), fix, fault=True)
