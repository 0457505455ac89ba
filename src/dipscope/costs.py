"""What a plan will cost: tokens, time, memory and disk, before anything runs.

Estimates, and said to be. Time is arithmetic over a sustained rate plus an overhead per token; when the
workspace already holds finished cells of the same kind and model, their measured speed is used instead.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from dipscope.data import countdown
from dipscope.data.reading import sources
from dipscope.data.shaping import variants
from dipscope.data.traces import Trace
from dipscope.plan import Cell, Plan, recipe_of
from dipscope.study import Model
from dipscope.train.schedule import total_steps
from dipscope.workspace import Workspace

# Sustained fp32 rate of one core and overhead per token of a small model, measured on a 2-core Xeon without
# matrix units (see benchmarks/); a GPU figure is not claimed: there the first finished cells set the rate.
CORE_FLOPS = 100e9
GENERATE_FLOPS = 50e9
OPTION_TOKENS = 200  # four options of a prompt each
TOKEN_OVERHEAD = 25e-6
TOKENIZED_A_SECOND = 200_000
REPLAY_TOKENS = 60  # of a prompt and its answer
UNSEEN_ROW_TOKENS = 4_000  # of a row of long traces that are not here yet: an assumption, not a measurement
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
    """A plan's costs, summed over the cells that are not complete. Seconds of wall time at `workers`."""

    cells: int
    complete: int
    tokens: int
    seconds: float
    disk: int
    memory: int
    workers: int
    unsized: tuple[str, ...] = ()  # models of unknown size: their cells count for next to nothing here

    def as_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return asdict(self)


def estimate(plan: Plan, workspace: Workspace | None, workers: int) -> tuple[list[Cost], Total]:
    """Costs of every cell, and of what is left to do."""
    rates = _measured_rates(workspace) if workspace else {}
    sizes = _Sizes(plan)
    costs = [_cost(cell, plan, sizes, rates) for cell in plan.cells]
    done = {c.id for c in plan.cells if workspace and workspace.outputs(c.id) is not None}
    left = [c for c in costs if c.cell not in done]
    largest = max((sizes.parameters(c) for c in plan.cells if c.kind == "train"), default=0)
    tokens = max((recipe_of(c.settings).pack_tokens for c in plan.cells if c.kind == "train"), default=0)
    # fp32 master weights, gradients and two moments; about 34 floats of activations a token, layer, channel
    # (layers × channels from parameters = 12 × layers × channels²)
    memory = 16 * largest + tokens * 34 * 4 * largest // (12 * sizes.width(largest))
    longest = max((c.seconds for c in left), default=0.0)
    seconds = max(sum(c.seconds for c in left) / workers, longest)
    total = Total(
        len(costs),
        len(done),
        sum(c.tokens for c in left),
        seconds,
        sum(c.disk for c in left),
        memory,
        workers,
        tuple(name for name, model in plan.study.models.items() if not parameter_count(model)),
    )
    return costs, total


def _cost(cell: Cell, plan: Plan, sizes: _Sizes, rates: dict[tuple[str, str], float]) -> Cost:
    parameters = sizes.parameters(cell)
    tokens, seconds, disk = 0, 2.0, 0
    if cell.kind == "base":
        disk = 2 * parameters
        seconds = 5.0
    elif cell.kind == "train":
        recipe = recipe_of(cell.settings)
        data = plan.cell(plan.cell(cell.needs[1]).needs[1])
        rows = total_steps(recipe, data.settings["rows"]) * recipe.batch_size
        tokens = rows * sizes.row_tokens(data)
        seconds = tokens * (6 * parameters / CORE_FLOPS + TOKEN_OVERHEAD)
        width = 4 if recipe.save_dtype == "fp32" else 2
        disk = len(cell.settings["steps"]) * width * parameters + 12 * parameters
    elif cell.kind == "measure":
        # Half the cap: a base answers in a tenth of it, a model in its dip runs to the end of it.
        tokens = sum(b["items"] * b["samples"] * b["max_tokens"] // 2 for b in cell.settings["benchmarks"])
        scored = sum(OPTION_TOKENS * b["items"] for b in cell.settings["benchmarks"] if b["likelihood"])
        seconds = tokens * (2 * parameters / GENERATE_FLOPS + GENERATE_OVERHEAD)
        seconds += scored * 2 * parameters / CORE_FLOPS
        disk = tokens * 4
    elif cell.kind == "tokenize":
        data = plan.cell(cell.needs[1])
        seconds += data.settings["rows"] * sizes.row_tokens(data) / TOKENIZED_A_SECOND
        disk = 4 * data.settings["rows"] * sizes.row_tokens(data)
    elif cell.kind == "replay":
        tokens = 2 * cell.settings["rows"] * REPLAY_TOKENS  # about half of the answers end by themselves
        seconds = tokens * (2 * parameters / GENERATE_FLOPS + GENERATE_OVERHEAD)
    rate = rates.get((cell.kind, sizes.model(cell)))
    if rate is not None:
        seconds = tokens / rate if tokens else seconds
    return Cost(cell.id, cell.kind, cell.name, tokens, seconds, disk, rate is not None)


class _Sizes:
    """Parameter counts and row lengths of a plan's models and datasets."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._rows: dict[str, int] = {}
        self._models: dict[str, str] = {}
        for run, base, trained, _ in plan.runs:
            self._models.setdefault(base, run.model)
            self._models[trained] = run.model

    def model(self, cell: Cell) -> str:
        """Name of the model a cell works on, empty for data cells without one."""
        for cell_id in (cell.id, *cell.needs):
            if cell_id in self._models:
                return self._models[cell_id]
        return ""

    def parameters(self, cell: Cell) -> int:
        """Parameters of the cell's model; 0 when they cannot be told without a download."""
        name = self.model(cell)
        return parameter_count(self.plan.study.models[name]) if name else 0

    def width(self, parameters: int) -> int:
        """A typical hidden size for a parameter count."""
        return int(max(64, (parameters / 12 / 30) ** 0.5))

    def row_tokens(self, data: Cell) -> int:
        """Mean tokens of a row, from a few traces; words, signs and digits stand in for tokens."""
        if data.id not in self._rows:
            self._rows[data.id] = self._mean_row(data)
        return self._rows[data.id]

    def _mean_row(self, data: Cell) -> int:
        settings = data.settings
        if data.kind == "replay":
            return REPLAY_TOKENS
        if "mix" in settings:
            parts = zip(settings["mix"].values(), data.needs, strict=False)
            return int(sum(share * self.row_tokens(self.plan.cell(need)) for share, need in parts))
        originals = _first_rows(settings)
        if not originals:
            return UNSEEN_ROW_TOKENS
        some = [variants.apply(settings["variant"], t, random.Random(0)) for t in originals]
        words = (re.findall(r"\w+|[^\w\s]|\n", t.prompt + t.response) for t in some)
        return round(sum(len(w) + 4 for w in words) / len(some))


def _first_rows(settings: dict[str, Any]) -> list[Trace]:
    """Some traces of a dataset; none where they would have to be fetched first."""
    if "source" in settings:
        return countdown.traces(min(32, settings["rows"]), settings["seed"], settings["options"])
    source = sources.Source.from_settings(settings["from"])
    if source.path is None:
        return []
    return list(itertools.islice(sources.open_table(source).stream(), 32))


def parameter_count(model: Model) -> int:
    """Parameters of a model as far as they are known without loading it."""
    if model.organism is not None:
        from dipscope.organism.base import SIZES

        return int(SIZES[model.organism].parameters)
    if model.wheel is not None:
        return 134_515_008
    if model.path is not None:
        return sum(f.stat().st_size for f in Path(model.path).glob("*.safetensors")) // 2
    named = re.search(r"(\d+(?:\.\d+)?)\s*([bBmM])(?![a-zA-Z])", model.hub or "")
    return int(float(named[1]) * {"b": 1e9, "m": 1e6}[named[2].lower()]) if named else 0


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
