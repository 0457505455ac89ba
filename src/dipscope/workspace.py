"""The directory a study lives in: where things are, atomic writes, completion markers.

Layout::

    study.json                      the resolved study this workspace belongs to
    cells/<kind>-<key>.json         completion marker of a cell: its outputs and their checksums
    models/<key>/                   base models in the Hugging Face layout
    data/<key>/traces.parquet       prepared traces
    runs/<key>/step-000010/         checkpoints; resume/ holds the newest resume point
    records/<checkpoint>/<bench>/   record shards
    analysis.json  report/          what follows from the records
    log.jsonl                       when what took how long (never read for results)
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dipscope.errors import DipscopeError

FORMAT = 1
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # .NAME.PROCESS.tmp: what is renamed once it is whole


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that it is either whole or absent: temporary name, fsync, rename.

    Raises:
        DipscopeError: the disk is full or the place cannot be written; what was there before stays.
    """
    payload = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one sentence that a library could not write below `path`.

    safetensors and tokenizers raise no OSError for a full disk, but exceptions of their own that quote it.

    Raises:
        DipscopeError: a write failed.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error
    except Exception as error:
        quoted = re.search(r"([^:]+?) \(os error (\d+)\)$", str(error))
        if quoted is None:
            raise
        raise unwritable(path, OSError(int(quoted[2]), quoted[1].strip())) from error


def unwritable(path: Path, error: OSError) -> DipscopeError:
    """The one sentence for a write that failed."""
    reason = error.strerror or str(error)
    return DipscopeError(
        f"cannot write ({reason})",
        str(path),
        "Free space or choose another --workspace; then run again.",
        fault=True,
    )


def as_umask_says(path: Path, like: Path) -> None:
    """Give a file that a library made for its owner alone the mode of one that was simply opened."""
    path.chmod(stat.S_IMODE(like.stat().st_mode))


def sync_folder(folder: Path) -> None:
    """Flush a directory and the files in it to disk, before it is renamed into place."""
    for path in [*(p for p in folder.iterdir() if p.is_file()), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def hash_json(value: Any, length: int = 16) -> str:
    """Content key of anything JSON can hold, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Workspace:
    """Paths and markers of one workspace. Creating the object creates the directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            for name in ("cells", "models", "data", "runs", "records"):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(root, error) from error

    def relative(self, path: Path) -> str:
        """A path as it is stored: below the workspace where it can be, so that a workspace can be moved."""
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path.resolve())

    def absolute(self, stored: str) -> Path:
        """The inverse of `relative`."""
        return self.root / stored

    def marker(self, cell: str) -> Path:
        """Where the completion marker of a cell stands."""
        return self.root / "cells" / f"{cell}.json"

    def outputs(self, cell: str) -> dict[str, Any] | None:
        """What a completed cell left behind, or None when it is not complete or its marker is damaged."""
        try:
            marker = json.loads(self.marker(cell).read_text())
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(marker, dict) or marker.get("format") != FORMAT:
            return None
        outputs = marker.get("outputs")
        sound = isinstance(outputs, dict) and marker.get("sha256") == hash_json(outputs, 64)
        return outputs if sound else None

    def complete(self, cell: str, outputs: Mapping[str, Any]) -> None:
        """Mark a cell complete. Nothing of it may change afterwards."""
        outputs = json.loads(json.dumps(outputs))  # as it will be read
        marker = {"format": FORMAT, "outputs": outputs, "sha256": hash_json(outputs, 64)}
        write_atomic(self.marker(cell), json.dumps(marker, indent=1, sort_keys=True))

    def forget(self, cell: str) -> None:
        """Take a completion marker back: the cell is redone at the next run."""
        self.marker(cell).unlink(missing_ok=True)

    def log(self, event: str, **fields: Any) -> None:
        """Append a line to the log. Losing one harms nothing."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **fields})
        try:
            with (self.root / "log.jsonl").open("a") as file:
                file.write(line + "\n")
        except OSError:
            return  # a full disk is reported by the write that matters

    def take(self, patience: float = 15.0) -> None:
        """Become the one process that works here, for as long as this process lives.

        Waits a moment for workers of a killed run to notice that their parent is gone, then removes what
        they had half written.

        Raises:
            DipscopeError: another run is at work in this workspace.
        """
        self._owner = _lock(self.root / ".owner.lock", fcntl.LOCK_EX, 0.0)
        workers = _lock(self.root / ".workers.lock", fcntl.LOCK_EX, patience) if self._owner else None
        if workers is None:
            raise DipscopeError(
                "another dipscope run is at work in this workspace",
                str(self.root),
                "Wait for it or stop it.",
                fault=True,
            )
        os.close(workers)
        for leftover in [p for p in self.root.rglob(".*.tmp") if _TEMPORARY.fullmatch(p.name)]:
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    def taken(self) -> bool:
        """Whether a run is at work here."""
        handle = _lock(self.root / ".owner.lock", fcntl.LOCK_EX, 0.0)
        if handle is not None:
            os.close(handle)
        return handle is None

    def hold_worker_lock(self) -> None:
        """Say that a worker of this workspace lives, until its process ends."""
        self._worker = _lock(self.root / ".workers.lock", fcntl.LOCK_SH, 5.0)


def _lock(path: Path, kind: int, patience: float) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return handle
        except OSError:
            if time.monotonic() > until:
                os.close(handle)
                return None
            time.sleep(0.05)
