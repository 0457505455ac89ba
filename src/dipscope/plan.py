"""From a study to its cells: what is to be done, in which order, under keys made of all that matters.

A key is the hash of a cell's settings and of the keys of the cells it needs. Nothing else decides whether
work is redone: same key, same result; another setting, another key, and only what follows from it changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dipscope.benchmarks import registry
from dipscope.benchmarks.base import Benchmark
from dipscope.errors import DipscopeError
from dipscope.study import Dataset, Measure, Model, Recipe, Run, Study
from dipscope.train.schedule import checkpoint_steps, total_steps
from dipscope.workspace import hash_file, hash_json

Kind = Literal["base", "replay", "prepare", "train", "measure"]

# Raise a number when the stage's code changes what it produces; cells of that kind are then redone.
VERSIONS: dict[Kind, int] = {"base": 1, "replay": 1, "prepare": 1, "train": 1, "measure": 1}


@dataclass(frozen=True)
class Cell:
    """One unit of work.

    Attributes:
        kind: which stage does it.
        key: content key.
        name: what it is called in progress bars and messages.
        needs: ids of the cells whose outputs it reads.
        settings: everything the stage needs to know, as plain JSON.
    """

    kind: Kind
    key: str
    name: str
    needs: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def id(self) -> str:
        """Kind and key: the name of the completion marker."""
        return f"{self.kind}-{self.key}"


@dataclass(frozen=True)
class BenchmarkPlan:
    """One benchmark with the options that hold for it in this study."""

    benchmark: Benchmark
    items: int
    samples: int
    max_tokens: int

    def settings(self, measure: Measure) -> dict[str, Any]:
        """What decides its records, as plain JSON."""
        return {
            "name": self.benchmark.name,
            "scorer": self.benchmark.scorer,
            "items": self.items,
            "samples": self.samples,
            "max_tokens": self.max_tokens,
            "temperature": measure.temperature,
            "top_p": measure.top_p,
            "top_k": measure.top_k,
            "split": measure.split,
            "seed": measure.seed,
            "likelihood": measure.likelihood,
        }


@dataclass(frozen=True)
class Plan:
    """All cells of a study in an order in which they can be done, and where each checkpoint comes from."""

    study: Study
    cells: tuple[Cell, ...]
    runs: tuple[tuple[Run, str, str, tuple[int, ...]], ...]  # run, base cell, train cell, trained steps
    benchmarks: tuple[BenchmarkPlan, ...]

    def cell(self, cell_id: str) -> Cell:
        """A cell by its id."""
        return next(c for c in self.cells if c.id == cell_id)

    def measured_steps(self, run: Run) -> tuple[int, ...]:
        """Step 0 and every checkpoint of a run."""
        return (0, *next(steps for r, _, _, steps in self.runs if r == run))


def make(study: Study) -> Plan:
    """Lay out the cells of a study.

    Raises:
        DipscopeError: the study names something that does not exist or cannot be.
    """
    benchmarks = _benchmarks(study.measure)
    cells: dict[str, Cell] = {}
    runs = []

    def add(kind: Kind, name: str, settings: dict[str, Any], *needs: str) -> str:
        key = hash_json([kind, VERSIONS[kind], settings, list(needs)])
        cell = Cell(kind, key, name, needs, settings)
        cells.setdefault(cell.id, cell)
        return cell.id

    measured = [b.settings(study.measure) for b in benchmarks]
    for run in study.expand():
        model, dataset = study.models[run.model], study.datasets[run.dataset]
        recipe = study.recipes[run.recipe]
        base = add("base", run.model, _model_settings(model))
        needs: tuple[str, ...] = ()
        data_name = run.dataset
        if replayed := round(dataset.rows * dataset.replay):
            prompts = "organism" if model.organism else "general"
            asked = {"rows": replayed, "seed": dataset.seed, "prompts": prompts}
            needs = (add("replay", f"by {run.model}", asked, base),)
            data_name = f"{run.dataset} for {run.model}"
        prepared = add("prepare", data_name, _dataset_settings(dataset, run.dataset), *needs)
        total = total_steps(recipe, dataset.rows)
        steps = tuple(checkpoint_steps(recipe.checkpoints, total))
        settings = {"recipe": recipe.model_dump(mode="json"), "seed": run.seed, "steps": list(steps)}
        trained = add("train", run.name, settings, base, prepared)
        add("measure", f"{run.model} @ 0", {"step": 0, "benchmarks": measured}, base)
        for step in steps:
            add("measure", f"{run.name} @ {step}", {"step": step, "benchmarks": measured}, trained)
        runs.append((run, base, trained, steps))
    order = {kind: place for place, kind in enumerate(VERSIONS)}
    ordered = sorted(cells.values(), key=lambda c: order[c.kind])
    return Plan(study, tuple(ordered), tuple(runs), tuple(benchmarks))


def _benchmarks(measure: Measure) -> list[BenchmarkPlan]:
    found = registry.resolve(measure.benchmarks)
    names = {b.name for b in found}
    for name in measure.benchmark:
        if name not in names:
            raise DipscopeError(
                f"options are given for '{name}', which is not measured",
                "measure.benchmark",
                f"Measured are: {', '.join(sorted(names))}.",
            )
    plans = []
    for benchmark in found:
        own = measure.benchmark.get(benchmark.name)
        items = own.items if own and own.items else measure.items
        samples = own.samples if own and own.samples else measure.samples
        cap = (own.max_tokens if own else None) or measure.max_tokens or benchmark.max_tokens
        if samples > 1 and measure.temperature == 0:
            raise DipscopeError(
                f"{samples} samples at temperature 0 would all be the same",
                f"measure ({benchmark.name})",
                "Set a temperature, or samples = 1.",
            )
        plans.append(BenchmarkPlan(benchmark, items, samples, cap))
    return plans


def _model_settings(model: Model) -> dict[str, Any]:
    settings = model.model_dump(mode="json", exclude_none=True)
    if model.organism is not None:
        from dipscope.organism.base import SIZES

        if model.organism not in SIZES:
            raise DipscopeError(
                f"there is no organism of size '{model.organism}'", "models", f"Sizes are {', '.join(SIZES)}."
            )
    if model.path is not None:
        folder = Path(model.path)
        files = sorted(folder.glob("*.safetensors"))
        if not files or not (folder / "config.json").is_file():
            raise DipscopeError(
                "the folder is no Hugging Face checkpoint (config.json and *.safetensors)",
                str(folder),
                "Check the path.",
            )
        # The weights may change under the same path: their size and time stand in for their content here.
        settings["files"] = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    return settings


def _dataset_settings(dataset: Dataset, name: str) -> dict[str, Any]:
    settings = dataset.model_dump(mode="json")
    if dataset.source.startswith("jsonl:"):
        path = Path(dataset.source.removeprefix("jsonl:"))
        if not path.is_file():
            raise DipscopeError(
                "there is no such file", f"datasets.{name}.source = '{path}'", "Check the path."
            )
        settings["sha256"] = hash_file(path)
    elif dataset.source != "countdown":
        raise DipscopeError(
            f"unknown source '{dataset.source}'",
            f"datasets.{name}",
            "Sources are 'countdown' and 'jsonl:PATH'.",
        )
    return settings


def recipe_of(settings: dict[str, Any]) -> Recipe:
    """The recipe in the settings of a train cell."""
    return Recipe.model_validate(settings["recipe"])
