"""Which files of a folder or repository are the table that is meant.

Formats that can run code when they are read (pickles, loading scripts) are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from dipscope.errors import DipscopeError
from dipscope.workspace import hash_file

_SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv")
_CODE = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".npy", ".npz", ".py", ".arrow", ".feather")
# Files of metadata that stand beside the tables, here and on the Hub.
_BESIDE = {"dataset_info.json", "dataset_infos.json", "state.json", "provenance.json", "config.json"}
_SHARD = re.compile(r"(-\d{5}-of-\d{5}(-[0-9a-f]{16})?|[-_.]\d+)$")
_OF = re.compile(r"-\d{5}-of-(\d{5})")


def suffix(name: str) -> str | None:
    """The format of a file by its name, without `.gz`; None when it is no table."""
    plain = name.lower().removesuffix(".gz")
    found = next((s for s in _SUFFIXES if plain.endswith(s)), None)
    return None if found == ".parquet" and plain != name.lower() else found


def refuse(name: str) -> DipscopeError:
    """The error for a file that is no table which dipscope reads."""
    if PurePosixPath(name).suffix.lower() in _CODE:
        what = "this format is not read: such files can run code or hide what they hold"
    else:
        what = "this is no table that dipscope reads"
    return DipscopeError(what, name, "Give parquet, JSONL, a JSON array or CSV (text may be gzipped).")


def choose(names: Iterable[str], pattern: str | None, where: str) -> list[str]:
    """Which of a folder's files make up the one table that is meant, in sorted order.

    Args:
        names: paths below the folder, with forward slashes.
        pattern: the file that the user named, or a glob such as `data/train-*`; None takes the folder's
            only table, whose shards may be numbered.
        where: the folder or repository, for errors.

    Raises:
        DipscopeError: nothing is there, several tables are there, or shards of the table are missing.
    """
    known = sorted(n for n in names if not any(p.startswith(".") for p in PurePosixPath(n).parts))
    tables = [n for n in known if suffix(n) and PurePosixPath(n).name not in _BESIDE]
    if pattern is not None:
        inside(pattern, where)
        found = [n for n in known if n == pattern] or [n for n in tables if PurePosixPath(n).match(pattern)]
        if not found:
            raise DipscopeError(
                f"there is no file '{pattern}'", where, f"It holds {_listed(tables) or 'no tables at all'}."
            )
        for name in found:
            if not suffix(name):
                raise refuse(f"{where}/{name}")
        # Whoever names a file or counts shards in a pattern means those; a pattern such as train-* means all.
        return found if pattern in found or re.search(r"\d{5}|\[", pattern) else _complete(found, where)
    if not tables:
        held = (
            "a loading script, which is not run" if any(n.endswith(".py") for n in known) else _listed(known)
        )
        raise DipscopeError(
            f"it holds no table; there is {held or 'nothing'}",
            where,
            "Give a source with parquet, JSONL, JSON or CSV files.",
        )
    # Text beside parquet describes it or repeats it.
    tables = [n for n in tables if suffix(n) == ".parquet"] or tables
    groups: dict[str, list[str]] = {}
    for name in tables:
        groups.setdefault(_group(name), []).append(name)
    if len(groups) > 1:
        first = next(iter(groups.values()))
        example = first[0] if len(first) == 1 else f"{next(iter(groups))}*"
        raise DipscopeError(
            f"it holds several tables: {_listed(list(groups))}",
            where,
            f'Name one, such as file = "{example}".',
        )
    return _complete(tables, where)


def inside(name: str, where: str) -> None:
    """Refuse a path that could leave the folder it is meant to be in.

    Raises:
        DipscopeError: the path is absolute or goes up.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise DipscopeError(f"the path '{name}' leaves the source's folder", where, "Name a file inside it.")


def verify(files: Mapping[str, Path], sha256: str, where: str) -> None:
    """Compare the one file of a table with its checksum.

    Raises:
        DipscopeError: there are several files, or the checksum is another.
    """
    if len(files) > 1:
        raise DipscopeError(
            f"sha256 is the checksum of one file, there are {len(files)}", where, "Name one by file."
        )
    ((name, path),) = files.items()
    found = hash_file(path)
    if found != sha256.lower():
        raise DipscopeError(
            f"the file {name} has SHA-256 {found}, not {sha256}",
            where,
            "Nothing of it was used. Pin the revision that the checksum belongs to, or correct sha256; "
            f"if a download is at fault, delete {path.resolve()} and fetch it again.",
        )


def _group(name: str) -> str:
    """What the shards of one table have in common."""
    path = PurePosixPath(name)
    stem = path.name[: path.name.lower().index(str(suffix(path.name)))]
    if stem.startswith("part-") or stem.isdigit():
        stem = "part-" if stem.startswith("part-") else ""
    else:
        stem = _SHARD.sub("-", stem) if _SHARD.search(stem) else stem
    return str(path.with_name(stem)) if stem else f"{path.parent}/"


def _complete(names: list[str], where: str) -> list[str]:
    """Refuse a table of which numbered shards are missing."""
    for name in names:
        stated = _OF.search(name)
        if stated and len(names) < int(stated[1]):
            raise DipscopeError(
                f"only {len(names)} of the {int(stated[1])} shards of {_group(name)} are there",
                where,
                "Fetch all of them, or name the files that you want.",
            )
    return names


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown
