"""The identity of a model: one hash over its tensors, however they are spread over files."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dipscope.errors import DipscopeError


class WeightsDigest:
    """Takes in tensors in the order of their names; gives 16 hex digits."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def begin(self, name: str, dtype: str, shape: Sequence[int]) -> None:
        """Announce the next tensor, by its safetensors format name (`F32`, `BF16`) and shape."""
        self._digest.update(json.dumps([name, dtype, list(shape)]).encode())

    def data(self, block: bytes | memoryview) -> None:
        """Take in bytes of the announced tensor."""
        self._digest.update(block)

    def hexdigest(self) -> str:
        """The hash of everything taken in."""
        return self._digest.hexdigest()[:16]


def weights_hash(folder: Path) -> str:
    """Content hash of the weights in a directory: names, formats, shapes and bytes.

    How tensors are spread over files, and the metadata of the files, do not matter. The header of a
    safetensors file is an 8-byte little-endian length and JSON with the byte range of every tensor.

    Raises:
        DipscopeError: there are no safetensors files, or one is damaged.
    """
    where: dict[str, tuple[Path, int, dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(min(length, 100_000_000)))
            header.pop("__metadata__", None)
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
            if path.stat().st_size != 8 + length + end:
                raise ValueError("its size does not fit its header")
        except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(path, f"is not a whole safetensors file ({error})") from None
        where |= {name: (path, 8 + length, entry) for name, entry in header.items()}
    if not where:
        raise damaged(folder, "has no safetensors files")
    digest = WeightsDigest()
    for name in sorted(where):
        path, base, entry = where[name]
        begin, end = entry["data_offsets"]
        digest.begin(name, entry["dtype"], entry["shape"])
        with path.open("rb") as file:
            file.seek(base + begin)
            left = end - begin
            while left > 0 and (block := file.read(min(left, 1 << 24))):
                digest.data(block)
                left -= len(block)
    return digest.hexdigest()


def damaged(path: Path, what: str) -> DipscopeError:
    """The one sentence for a checkpoint that is not what it was."""
    return DipscopeError(what, str(path), "Remove the checkpoint and run again.", fault=True)
