"""Studies from files: presets, the paper's runs by name, and how files, scales and tables are composed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dipscope.errors import DipscopeError
from dipscope.study import (
    AnalysisSpec,
    BenchmarkOptions,
    Dataset,
    Lora,
    Measure,
    Model,
    Recipe,
    Runs,
    Spec,
    Storage,
    Study,
    StudyHead,
    Track,
    near,
)

_AXES = ("models", "datasets", "recipes")


@dataclass(frozen=True)
class _Source:
    """A file as it was read, with what it extends.

    `library` has the names of a matrix preset's models, datasets and recipes, of which a study keeps those
    it uses; `notes` is what is to be said where one of them is.
    """

    tree: dict[str, Any]
    where: str
    library: frozenset[tuple[str, str]] = frozenset()
    notes: Mapping[str, str] = field(default_factory=dict)


def presets() -> list[str]:
    """Names that `dipscope run NAME` and `extends` know, sets of runs before single ones."""
    return [name for file in _files() for name in _names(file)]


def scales(source: str) -> list[str]:
    """Names of the scales that a study has.

    Raises:
        DipscopeError: there is no such study, or it cannot be read.
    """
    return list(_read(source, Path.cwd(), ()).tree.get("scale", {}))


def load(source: str, scale: str | None = None) -> Study:
    """Read a study from a preset name or a TOML file, compose what it extends, apply one of its scales.

    Raises:
        DipscopeError: naming the file, the key and what to do.
    """
    read = _read(source, Path.cwd(), ())
    tree, where = dict(read.tree), read.where
    known = tree.pop("scale", {})
    if scale is not None:
        if scale not in known:
            raise DipscopeError(
                f"there is no scale '{scale}'{near(scale, known)}",
                where,
                f"It has: {', '.join(known) or 'none'}.",
            )
        tree = _over(tree, known[scale])
    for axis in _AXES:
        if isinstance(tables := tree.get(axis), dict):
            tree[axis] = {name: _like(tables, name, f"{where}: {axis}") for name in tables}
    try:
        study = Study.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, where) from None
    return _without_unused(study, read)


def _files() -> list[str]:
    root = resources.files("dipscope") / "presets"
    return sorted(p.name.removesuffix(".toml") for p in root.iterdir() if p.name.endswith(".toml"))


def _names(file: str) -> list[str]:
    matrix = tomllib.loads(_text(file)).get("matrix")
    return [file] if matrix is None else [f"{file}/{name}" for name in (*matrix["sets"], *matrix["runs"])]


def _text(file: str) -> str:
    return (resources.files("dipscope") / "presets" / f"{file}.toml").read_text(encoding="utf-8")


def _read(source: str, relative_to: Path, seen: tuple[str, ...]) -> _Source:
    if source in seen:
        raise DipscopeError(f"presets extend each other in a circle: {' → '.join((*seen, source))}", source)
    path = relative_to / source
    if path.suffix != ".toml":
        return _preset(source, relative_to, seen)
    if not path.is_file():
        raise DipscopeError("there is no such study file", str(path), "Check the path.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DipscopeError(f"the study file cannot be read ({error})", str(path)) from None
    return _parse(text, str(path), path.parent, (*seen, source))


def _preset(source: str, relative_to: Path, seen: tuple[str, ...]) -> _Source:
    """A preset: a file of its own, or one name of a matrix."""
    if source not in presets():
        files = [name for name in _files() if _names(name) == [name]]
        sets = [name for file in _files() for name in _names(file) if name not in files][:4]
        shown = ", ".join([*files, *sets])
        fix = (
            f"Presets are {shown} and more (`dipscope plan paper/all` names each run); a file ends in .toml."
        )
        raise DipscopeError(f"there is no preset '{source}'{near(source, presets())}", "study", fix)
    file, _, name = source.partition("/")
    read = _parse(_text(file), f"preset {source}", relative_to, (*seen, source))
    if not name:
        return read
    tree = dict(read.tree)
    matrix = tree.pop("matrix")
    chosen = matrix["sets"].get(name, {"runs": [name], "description": "A published configuration."})
    runs = [
        run for known, run in matrix["runs"].items() if any(fnmatchcase(known, p) for p in chosen["runs"])
    ]
    head = {"name": f"{file}-{name}", "description": chosen["description"]}
    tree["study"] = {**tree.get("study", {}), **head}
    tree["runs"] = _runs(runs)
    library = frozenset((axis, name) for axis in _AXES for name in tree.get(axis, {}))
    return _Source(tree, read.where, library, matrix.get("notes", {}))


def _runs(runs: list[list[str]]) -> dict[str, Any]:
    """`[runs]` for these combinations: as axes where they are a whole product, which is easier to change."""
    axes = [list(dict.fromkeys(run[n] for run in runs)) for n in range(len(_AXES))]
    if sorted(map(list, product(*axes))) == sorted(runs):
        return dict(zip(_AXES, axes, strict=True))
    return {"list": [dict(zip(("model", "dataset", "recipe"), run, strict=True)) for run in runs]}


def _parse(text: str, where: str, folder: Path, seen: tuple[str, ...]) -> _Source:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DipscopeError(f"this is not valid TOML: {error}", where, "Mend the line it names.") from None
    parent = tree.pop("extends", None)
    if parent is None:
        return _Source(tree, where)
    base = _read(str(parent), folder, seen)
    return _Source(_over(base.tree, tree), where, base.library, base.notes)


def _over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the nearer `over` laid on it.

    Tables merge key by key and everything else is replaced; but a product of runs and a list of them
    replace each other, since together they would be the runs of both.
    """
    merged = _merge(base, over)
    asked = over.get("runs")
    if isinstance(asked, dict) and isinstance(merged["runs"], dict):
        dropped = ("list",) if "list" not in asked else tuple(axis for axis in _AXES if axis not in asked)
        if asked:
            merged["runs"] = {key: value for key, value in merged["runs"].items() if key not in dropped}
    return merged


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _like(tables: Mapping[str, Any], name: str, where: str, seen: tuple[str, ...] = ()) -> Any:
    """The table `name`, with what it does not say itself taken from the one that it is `like`."""
    table = tables[name]
    if not isinstance(table, dict) or "like" not in table:
        return table
    model, path = table["like"], f"{where}.{name}.like"
    if not isinstance(model, str) or model not in tables:
        what = f"there is no '{model}' to be like{near(str(model), tables)}"
        raise DipscopeError(what, path, f"There are: {', '.join(tables)}.")
    if model in (*seen, name):
        raise DipscopeError(
            f"they are like each other in a circle: {' → '.join((*seen, name, model))}", path, "Break it."
        )
    rest = {key: value for key, value in table.items() if key != "like"}
    base = _like(tables, model, where, (*seen, name))
    return {**base, **rest} if isinstance(base, dict) else base


def _without_unused(study: Study, read: _Source) -> Study:
    """The study without what only the library of a preset defines, and with the notes on what it uses."""
    runs = study.expand()
    used = {("models", r.model) for r in runs} | {("recipes", r.recipe) for r in runs}
    named = {r.dataset for r in runs}
    parts = {part for name in named for part in study.datasets[name].mix}
    used |= {("datasets", name) for name in named | parts}
    kept = {}
    for axis in _AXES:
        tables = getattr(study, axis)
        kept[axis] = {
            name: table
            for name, table in tables.items()
            if (axis, name) in used or (axis, name) not in read.library
        }
    said = [text for name, text in read.notes.items() if any((axis, name) in used for axis in _AXES)]
    head = study.study.model_copy(update={"notes": (*study.study.notes, *said)})
    return study.model_copy(update={"study": head, **kept})


def _explain(error: ValidationError, where: str) -> DipscopeError:
    # An unknown key often is the missing one, misspelt: it explains more, so it comes first.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    at = [str(part) for part in first["loc"] if not str(part).startswith(("literal[", "tuple[", "str"))]
    key = ".".join(at)
    if first["type"] == "extra_forbidden":
        known = _fields_at(at[:-1])
        what = f"unknown key '{key}'{near(at[-1], known)}"
        return DipscopeError(what, where, f"Keys here: {', '.join(sorted(known))}." if known else "")
    if first["type"] == "missing":
        return DipscopeError(f"the key '{key}' is missing", where, "Add it.")
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if not key:
        return DipscopeError(message, where, "Correct the names in [runs] or in the mixes.")
    return DipscopeError(f"{key} = {first['input']!r}: {message}", where, "Correct the value.")


def _fields_at(path: list[str]) -> list[str]:
    """Field names of the table that a key path leads to; empty where it leads nowhere."""
    tables: dict[str, type[Spec]] = {
        "study": StudyHead, "models": Model, "datasets": Dataset, "recipes": Recipe,
        "runs": Runs, "measure": Measure, "analysis": AnalysisSpec, "track": Track, "storage": Storage,
    }  # fmt: skip
    if not path:
        return [*Study.model_fields, "extends", "scale"]
    if path[:2] == ["measure", "benchmark"]:
        return list(BenchmarkOptions.model_fields)
    if path[0] == "recipes" and path[2:] == ["lora"]:
        return list(Lora.model_fields)
    table = tables.get(path[0])
    known = [f.alias or name for name, f in table.model_fields.items()] if table else []
    return [*known, "like"] if path[0] in _AXES else known
