"""What a built dataset says of its making, and how a build knows a folder as its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dipscope import __version__
from dipscope.errors import DipscopeError
from dipscope.workspace import hash_file, hash_json, write_atomic

FORMAT = 1
NAME = "provenance.json"
CACHE = ".cache"  # in the folder of a build: what makes it resumable, and no part of the dataset
_BEGUN = "build.json"


def key(facts: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Content key of a build: what is read and by which rules, wherever it stands and whoever runs it.

    Args:
        facts: of the table, as `sources.Table.facts`.
        settings: everything else that the outputs follow from.
    """
    content = {name: facts.get(name) for name in ("hub", "revision", "files", "columns", "prefilled")}
    files = [{"sha256": f["sha256"], "name": Path(f["name"]).name} for f in content["files"] or ()]
    return hash_json({**content, "files": files, "settings": settings, "format": FORMAT})


def standing(out: Path, build: str) -> dict[str, Any] | None:
    """The provenance of a finished and whole build of this key in `out`; None when it is still to be made.

    Raises:
        DipscopeError: the folder belongs to another build, or to something else.
    """
    found = _json(out / NAME)
    begun = _json(out / CACHE / _BEGUN)
    owner = (found or begun or {}).get("build")
    if owner is None:
        if out.exists() and (not out.is_dir() or any(p.name != CACHE for p in out.iterdir())):
            raise DipscopeError("this is no folder of a build", str(out), "Name a new or empty folder.")
        return None
    if owner != build:
        state = "holds" if found else "holds the beginning of"
        raise DipscopeError(
            f"the folder {state} another build (other source, rules or verifier)",
            str(out),
            "Name another folder, or remove this one.",
        )
    whole = found is not None and all(_whole(out, v) for v in found["variants"].values())
    return found if whole else None


def begin(out: Path, build: str) -> None:
    """Mark `out` as the folder of a build that is under way."""
    write_atomic(out / CACHE / _BEGUN, json.dumps({"build": build}))


def write(out: Path, provenance: Mapping[str, Any]) -> None:
    """Write the provenance. It comes last: its presence says that the build is finished."""
    write_atomic(out / NAME, json.dumps(provenance, indent=1, ensure_ascii=False) + "\n")


def head(
    build: str, facts: Mapping[str, Any], rules: Mapping[str, Any], versions: Mapping[str, str]
) -> dict[str, Any]:
    """The part of a provenance that is known before anything is made."""
    return {
        "format": FORMAT,
        "build": build,
        "dipscope": __version__,
        "source": dict(facts),
        "rules": dict(rules),
        **versions,
    }


def _whole(out: Path, variant: Mapping[str, Any]) -> bool:
    path = out / variant["file"]
    return path.is_file() and hash_file(path) == str(variant["sha256"])


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
