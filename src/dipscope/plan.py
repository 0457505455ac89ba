"""From a study to its cells: what is to be done, in which order, under keys made of all that matters.

A key is the hash of a cell's settings and of the keys of the cells it needs. Nothing else decides whether
work is redone: same key, same result; another setting, another key, and only what follows from it changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dipscope.benchmarks import placeless, registry
from dipscope.benchmarks.items import LARGE, Defaults
from dipscope.benchmarks.published import Published
from dipscope.data import mix
from dipscope.data.reading import sources
from dipscope.errors import DipscopeError
from dipscope.interop import chat_template
from dipscope.scoring.base import Benchmark, Domain
from dipscope.study import REPLAY, BenchmarkOptions, Dataset, Measure, Model, Recipe, Run, Study
from dipscope.train.schedule import checkpoint_steps, total_steps
from dipscope.workspace import hash_file, hash_json

Kind = Literal["base", "replay", "prepare", "tokenize", "train", "measure"]

# Raise a number when the stage's code changes what it produces; cells of that kind are then redone.
VERSIONS: dict[Kind, int] = {
    "base": 2, "replay": 1, "prepare": 2, "tokenize": 1, "train": 2, "measure": 1
}  # fmt: skip


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
    """One benchmark with the options that hold for it in this study.

    `source` is what else decides the records of a published benchmark: its protocol, and the local file of
    its items with that file's hash.
    """

    benchmark: Benchmark
    items: int
    samples: int
    max_tokens: int
    domain: Domain
    temperature: float
    top_p: float
    top_k: int
    source: dict[str, str] = field(default_factory=dict)

    def settings(self, measure: Measure) -> dict[str, Any]:
        """What decides its records, as plain JSON."""
        return {
            "name": self.benchmark.name,
            "scorer": self.benchmark.scorer,
            "items": self.items,
            "samples": self.samples,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "split": measure.split,
            "seed": measure.seed,
            "likelihood": measure.likelihood,
            **self.source,
        }

    @property
    def fetches(self) -> str:
        """What measuring it fetches from the Hub, in one line; empty where that is nothing."""
        if not isinstance(self.benchmark, Published) or self.benchmark.path is not None:
            return ""
        source = self.benchmark.source
        access = ". Accept its terms there and set HF_TOKEN" if source.gated else ""
        return f"{self.benchmark.name} is fetched from the Hub: {source.where}{access}."


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

    measured = {
        "precision": study.measure.precision,
        "benchmarks": [b.settings(study.measure) for b in benchmarks],
    }
    data: dict[tuple[str, str], tuple[str, int]] = {}  # looking at a dataset's files once is enough
    for run in study.expand():
        recipe = study.recipes[run.recipe]
        base = add("base", run.model, _model_settings(study.models[run.model], run.model))
        if (run.dataset, base) not in data:
            data[run.dataset, base] = _add_dataset(add, study, run, base)
        prepared, rows = data[run.dataset, base]
        ids = {"max_length": recipe.max_length}
        tokenized = add("tokenize", f"{run.dataset} for {run.model}", ids, base, prepared)
        try:
            steps = tuple(checkpoint_steps(recipe.checkpoints, total_steps(recipe, rows)))
        except DipscopeError as error:
            raise DipscopeError(error.what, f"recipes.{run.recipe}", error.fix) from None
        settings = {"recipe": recipe.model_dump(mode="json"), "seed": run.seed, "steps": list(steps)}
        trained = add("train", run.name, settings, base, tokenized)
        add("measure", f"{run.model} @ 0", {"step": 0, **measured}, base)
        for step in steps:
            add("measure", f"{run.name} @ {step}", {"step": step, **measured}, trained)
        runs.append((run, base, trained, steps))
    order = {kind: place for place, kind in enumerate(VERSIONS)}
    ordered = sorted(cells.values(), key=lambda c: order[c.kind])
    return Plan(study, tuple(ordered), tuple(runs), tuple(benchmarks))


def _add_dataset(add: Callable[..., str], study: Study, run: Run, base: str) -> tuple[str, int]:
    """The prepare cell of a run's dataset, with the cells it needs; and the rows it will have."""
    name, dataset = run.dataset, study.datasets[run.dataset]
    if not dataset.mix:
        rows = rows_of(dataset, name)
        return add("prepare", name, _dataset_settings(dataset, rows)), rows
    assert dataset.rows is not None
    parts, needs = mix.counts(dataset.mix, dataset.rows), []
    for part, share in parts.items():
        # By tokens, the number of rows of a part follows from their lengths, which are not known yet.
        wanted = share if dataset.mix_by == "rows" else dataset.rows
        if part == REPLAY and part not in study.datasets:
            prompts = "organism" if study.models[run.model].organism else "general"
            asked = {"rows": wanted, "seed": dataset.seed, "prompts": prompts}
            needs.append(add("replay", f"by {run.model}", asked, base))
            continue
        source = study.datasets[part]
        there = rows_of(source, part)
        if dataset.mix_by == "rows" and there < share:
            raise DipscopeError(
                f"the mix takes {share} rows of '{part}', which has {there}",
                f"datasets.{name}",
                f"Lower its rows, or give '{part}' more.",
            )
        needs.append(add("prepare", part, _dataset_settings(source, there)))
    settings = {"mix": dataset.mix, "by": dataset.mix_by, "rows": dataset.rows}
    by_tokens = (base,) if dataset.mix_by == "tokens" else ()
    return add("prepare", f"{name} for {run.model}", settings, *needs, *by_tokens), dataset.rows


def rows_of(dataset: Dataset, name: str) -> int:
    """Rows that a dataset which is no mix will have.

    Raises:
        DipscopeError: it says no number and none can be known before the data are here, or there are fewer.
    """
    there = None if dataset.source else sources.count(source_of(dataset))
    if dataset.rows is None and there is None:
        raise DipscopeError(
            "how many rows it has is not known before it is here", f"datasets.{name}", "Give rows = N."
        )
    if there is not None and dataset.rows is not None and dataset.rows > there:
        raise DipscopeError(
            f"it has {there} rows, {dataset.rows} are asked for", f"datasets.{name}", "Lower rows."
        )
    return dataset.rows or there or 0


def source_of(dataset: Dataset) -> sources.Source:
    """Where a dataset from the Hub or a local path is read."""
    return sources.Source(
        path=dataset.path,
        hub=dataset.hub,
        revision=dataset.revision,
        file=dataset.file,
        sha256=dataset.sha256,
        columns=dataset.columns,
        prefilled=dataset.prefilled,
    )


def _benchmarks(measure: Measure) -> list[BenchmarkPlan]:
    names = registry.names(measure.benchmarks)
    for name in measure.benchmark:
        if name not in names:
            raise DipscopeError(
                f"options are given for '{name}', which is not measured",
                "measure.benchmark",
                f"Measured are: {', '.join(sorted(names))}.",
            )
    options = dict(measure.benchmark)
    for name, partner in registry.TOGETHER.items():
        if name in options:  # two halves of one set are asked and read alike
            options.setdefault(partner, options[name])
    return [_benchmark(name, measure, options.get(name, BenchmarkOptions())) for name in names]


def _benchmark(name: str, measure: Measure, own: BenchmarkOptions) -> BenchmarkPlan:
    published = name in registry.PUBLISHED
    protocol = own.protocol or (measure.protocol if published else "strict")
    benchmark = registry.get(name, protocol, own.path)
    placeless.check(benchmark, own.domain)
    defaults = benchmark.defaults if isinstance(benchmark, Published) else Defaults()

    def option(key: str) -> Any:
        """The benchmark's own options go first, then what [measure] says, the benchmark's defaults last."""
        said = getattr(own, key)
        if said is None and key not in measure.model_fields_set:
            said = getattr(defaults, key)
        return getattr(measure, key) if said is None else said

    items, samples, temperature = option("items"), option("samples"), option("temperature")
    if isinstance(benchmark, Published):
        items = min(items, benchmark.size)
        if measure.split == "dev" and (protocol == "paper" or benchmark.size <= LARGE):
            raise DipscopeError(f"'{name}' has no dev split", "measure.split", 'Set split = "test".')
    if samples > 1 and temperature == 0:
        raise DipscopeError(
            f"{samples} samples at temperature 0 would all be the same",
            f"measure ({name})",
            "Set a temperature, or samples = 1.",
        )
    source: dict[str, str] = {"protocol": protocol} if published else {}
    if own.path is not None:
        path, where = Path(own.path).expanduser(), f'measure.benchmark."{name}".path'
        if not path.is_file():
            raise DipscopeError(f"there is no file '{own.path}'", where, "Check the path.")
        source |= {"path": own.path, "path_sha256": hash_file(path)}
    return BenchmarkPlan(
        benchmark,
        items,
        samples,
        own.max_tokens or measure.max_tokens or benchmark.max_tokens,
        own.domain or benchmark.domain,
        temperature,
        option("top_p"),
        option("top_k"),
        source,
    )


def _model_settings(model: Model, name: str) -> dict[str, Any]:
    settings: dict[str, Any] = {"model": model.model_dump(mode="json", exclude_none=True)}
    if model.organism is not None:
        from dipscope.organism.base import SIZES

        if model.organism not in SIZES:
            raise DipscopeError(
                f"there is no organism of size '{model.organism}'",
                f"models.{name}",
                f"Sizes are {', '.join(SIZES)}.",
            )
    if model.path is not None:
        folder = Path(model.path)
        files = sorted(folder.glob("*.safetensors"))
        if not files or not (folder / "config.json").is_file():
            raise DipscopeError(
                f"{folder} is no Hugging Face checkpoint (config.json and *.safetensors)",
                f"models.{name}.path",
                "Check the path.",
            )
        # The weights may change under the same path: their size and time stand in for their content here.
        settings["files"] = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    if model.chat_template is not None and model.chat_template not in chat_template.NAMED:
        template = Path(model.chat_template)
        if not template.is_file():
            where = f"models.{name}.chat_template = '{template}'"
            raise DipscopeError("there is no such file", where, "Check the path.")
        settings["chat_template_sha256"] = hash_file(template)
    return settings


def _dataset_settings(dataset: Dataset, rows: int) -> dict[str, Any]:
    settings: dict[str, Any] = {"variant": dataset.variant, "rows": rows, "seed": dataset.seed}
    if dataset.source:
        return settings | {"source": dataset.source, "options": dataset.options}
    return settings | {"from": source_of(dataset).settings()}


def recipe_of(settings: dict[str, Any]) -> Recipe:
    """The recipe in the settings of a train cell."""
    return Recipe.model_validate(settings["recipe"])
