"""What each cell of a plan will take on this machine, and all that are left together.

Estimates, and said to be. Time is arithmetic over a sustained rate plus an overhead per token; when the
workspace already holds finished cells of the same kind and model, their measured speed is used instead.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from dipscope import retention
from dipscope.costs import memory, shapes
from dipscope.costs.rows import REPLAY_TOKENS, Rows
from dipscope.plan import Cell, Plan, recipe_of
from dipscope.study import Recipe
from dipscope.train.schedule import total_steps
from dipscope.workspace import Workspace

# Sustained fp32 rate of one core and overhead per token of a small model, measured on a 2-core Xeon without
# matrix units (see benchmarks/). What GPUs would take is in outlook.py.
CORE_FLOPS = 100e9
GENERATE_FLOPS = 50e9
OPTION_TOKENS = 200  # four options of a prompt each
TOKEN_OVERHEAD = 25e-6
TOKENIZED_A_SECOND = 200_000
GENERATE_OVERHEAD = 120e-6


@dataclass(frozen=True)
class Cost:
    """What one cell is expected to take. Tokens are those trained on or generated; 0 where none are."""

    cell: str
    kind: str
    name: str
    tokens: int
    seconds: float
    disk: int
    measured: bool


@dataclass(frozen=True)
class Total:
    """A plan's costs, summed over the cells that are not complete.

    Seconds are of wall time at `workers`. `disk` is written in all; `peak_disk` and `final_disk` are what
    checkpoints take at most at once and in the end, of the whole plan, under the study's `[storage] keep`.
    """

    cells: int
    complete: int
    tokens: int
    seconds: float
    disk: int
    memory: int
    workers: int
    peak_disk: int
    final_disk: int
    unsized: tuple[str, ...] = ()  # models of unknown size: their cells count for next to nothing here

    def as_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return asdict(self)


def estimate(plan: Plan, workspace: Workspace | None, workers: int) -> tuple[list[Cost], Total]:
    """Costs of every cell, and of what is left to do."""
    rates = _measured_rates(workspace) if workspace else {}
    sizes = _Sizes(plan)
    rows = Rows(plan, workspace)
    costs = [_cost(cell, plan, sizes, rows, rates) for cell in plan.cells]
    done = {c.id for c in plan.cells if workspace and workspace.outputs(c.id) is not None}
    left = [c for c in costs if c.cell not in done]
    training = [(c, recipe_of(c.settings)) for c in plan.cells if c.kind == "train"]
    needed = [
        memory.training(sizes.shape(c), recipe, rows.tokenized(plan.cell(c.needs[1])).longest).total
        for c, recipe in training
    ]
    points = sorted(
        (resume_point(sizes.trained(c, r), r) for c, r in training if c.id not in done), reverse=True
    )

    def stored(cell: Cell) -> tuple[int, int]:
        recipe = recipe_of(cell.settings)
        point = resume_point(sizes.trained(cell, recipe), recipe)
        return checkpoint(sizes.parameters(cell), recipe), point

    kept = retention.disk(plan, plan.study.storage.keep, workers, stored)
    longest = max((c.seconds for c in left), default=0.0)
    total = Total(
        len(costs),
        len(done),
        sum(c.tokens for c in left),
        max(sum(c.seconds for c in left) / workers, longest),
        sum(c.disk for c in left) + sum(points[:workers]),
        max(needed, default=0),
        workers,
        kept.peak,
        kept.final,
        tuple(name for name, model in plan.study.models.items() if not shapes.parameter_count(model)),
    )
    return costs, total


def checkpoint(parameters: int, recipe: Recipe) -> int:
    """Bytes of one saved checkpoint: every weight in 2 bytes, or in 4 with `save_dtype = "fp32"`."""
    return (4 if recipe.save_dtype == "fp32" else 2) * parameters


def resume_point(trained: int, recipe: Recipe) -> int:
    """Bytes that a run keeps while it trains, to go on from: the trained weights and two moments.

    12 a parameter, 6 with `bf16_pure`; twice, since the older point is dropped only when the newer one is
    whole. Frozen weights, as under LoRA, are those of the base and not kept.
    """
    return 2 * (6 if recipe.precision == "bf16_pure" else 12) * trained


def generated(benchmarks: list[dict[str, Any]]) -> int:
    """Tokens that a measurement is expected to generate: half the limit of every sample.

    A base answers in a tenth of the limit, a model in its dip runs to the end of it.
    """
    return int(sum(b["items"] * b["samples"] * b["max_tokens"] // 2 for b in benchmarks))


def _cost(
    cell: Cell, plan: Plan, sizes: _Sizes, rows: Rows, rates: dict[tuple[str, str], float]
) -> Cost:  # fmt: skip
    parameters = sizes.parameters(cell)
    tokens, seconds, disk = 0, 2.0, 0
    if cell.kind == "base":
        disk = 2 * parameters
        seconds = 5.0
    elif cell.kind == "train":
        recipe, tokenized = recipe_of(cell.settings), plan.cell(cell.needs[1])
        count = plan.cell(tokenized.needs[1]).settings["rows"]
        tokens = round(total_steps(recipe, count) * recipe.batch_size * rows.tokenized(tokenized).total)
        seconds = tokens * (6 * parameters / CORE_FLOPS + TOKEN_OVERHEAD)
        disk = len(cell.settings["steps"]) * checkpoint(parameters, recipe)
    elif cell.kind == "measure":
        tokens = generated(cell.settings["benchmarks"])
        scored = sum(OPTION_TOKENS * b["items"] for b in cell.settings["benchmarks"] if b["likelihood"])
        seconds = tokens * (2 * parameters / GENERATE_FLOPS + GENERATE_OVERHEAD)
        seconds += scored * 2 * parameters / CORE_FLOPS
        disk = tokens * 4
    elif cell.kind == "tokenize":
        in_all = round(plan.cell(cell.needs[1]).settings["rows"] * rows.tokenized(cell).total)
        seconds += in_all / TOKENIZED_A_SECOND
        disk = 4 * in_all
    elif cell.kind == "replay":
        tokens = 2 * cell.settings["rows"] * REPLAY_TOKENS  # about half of the answers end by themselves
        seconds = tokens * (2 * parameters / GENERATE_FLOPS + GENERATE_OVERHEAD)
    rate = rates.get((cell.kind, sizes.model(cell)))
    if rate is not None:
        seconds = tokens / rate if tokens else seconds
    return Cost(cell.id, cell.kind, cell.name, tokens, seconds, disk, rate is not None)


class _Sizes:
    """Which model each cell of a plan works on, and how large it is."""

    def __init__(self, plan: Plan) -> None:
        self._study = plan.study
        self._count = {name: shapes.parameter_count(model) for name, model in plan.study.models.items()}
        self._models: dict[str, str] = {}
        for run, base, trained, _ in plan.runs:
            self._models.setdefault(base, run.model)
            self._models[trained] = run.model

    def model(self, cell: Cell) -> str:
        """Name of the model a cell works on, empty for data cells without one."""
        return next((self._models[i] for i in (cell.id, *cell.needs) if i in self._models), "")

    def parameters(self, cell: Cell) -> int:
        """Parameters of the cell's model; 0 when they cannot be told without a download."""
        return self._count.get(self.model(cell), 0)

    def trained(self, cell: Cell, recipe: Recipe) -> int:
        """Parameters that training changes: all, or the adapters of LoRA."""
        return self.shape(cell).adapters(recipe.lora) if recipe.lora else self.parameters(cell)

    def shape(self, cell: Cell) -> shapes.Shape:
        """The shape of the cell's model, or a typical one of its size."""
        known = shapes.shape_of(self._study.models[self.model(cell)])
        return known or shapes.typical(self.parameters(cell))


def _measured_rates(workspace: Workspace) -> dict[tuple[str, str], float]:
    """Median tokens a second of finished cells, by kind and model."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    try:
        lines = (workspace.root / "log.jsonl").read_text().splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry.get("event") == "cell" and entry.get("work") and entry.get("seconds"):
            model = re.split(r"[/ ]", entry["name"])[0]
            found[entry["kind"], model].append(entry["work"] / entry["seconds"])
    return {key: median(values) for key, values in found.items()}
