"""What `dipscope plan` prints: a study resolved, and what it takes, in tables that fit a narrow terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dipscope.console import here, left_to_do
from dipscope.costs import hardware
from dipscope.plan import VERSIONS
from dipscope.units import count, size

if TYPE_CHECKING:
    from dipscope.costs.cells import Cost, Total
    from dipscope.costs.outlook import ModelOutlook, Outlook
    from dipscope.study import Spec, Study

_WORTH_A_GPU = 0.1  # hours; below, the table would say nothing
_ALWAYS = {"recipes": ("lr", "epochs", "batch_size", "schedule")}  # shown even where they are the defaults
_ON_MODELS = (
    "Memory of training at its peak, sharded by FSDP2 over several GPUs. Under each GPU type: the fewest of "
    "1 to 32 that hold it."
)
_HASH = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{32,}\b")


def show(
    study: Study, costs: Sequence[Cost], total: Total, seen: Outlook, scales: Sequence[str] = ()
) -> None:
    """Print the resolved study, its runs, and what they take on GPUs and on this machine."""
    console = Console()
    console.print(Text.assemble((study.study.name, "bold"), "  ", study.study.description))
    console.print(_facts(study, scales))
    _section(console, "Runs", _runs(seen), *_on_runs(seen))
    _section(console, "Models", _models(seen), _ON_MODELS)
    if max(h.training + h.measuring for h in seen.gpus.values()) >= _WORTH_A_GPU:
        _section(console, "GPU-hours, all runs", _gpus(seen), _on_gpus(seen))
    _section(console, "Cells", _cells(costs), left_to_do(total))
    if seen.notes:
        console.print()
    for note in seen.notes:
        console.print(Text(f"Note: {note}", style="yellow"))


def _section(console: Console, title: str, table: Table, *told: str) -> None:
    console.print()
    console.print(Text(title, style="bold"))
    console.print(table)
    for line in told:
        console.print(Text(line, style="dim"))


def _facts(study: Study, scales: Sequence[str]) -> Table:
    facts = Table.grid(padding=(0, 2))
    for label, names in (("models", study.models), ("datasets", study.datasets), ("recipes", study.recipes)):
        told = {name: _told(spec, _ALWAYS.get(label, ())) for name, spec in names.items()}
        common = _common(list(told.values())) if label == "recipes" else {}
        if common:
            facts.add_row(label, "", _settings(common))
        for number, (name, settings) in enumerate(told.items()):
            own = {key: value for key, value in settings.items() if key not in common}
            facts.add_row("" if number or common else label, name, _settings(own))
    facts.add_row("seeds", "", ", ".join(map(str, study.study.seeds)))
    facts.add_row("benchmarks", "", ", ".join(study.measure.benchmarks))
    if scales:
        facts.add_row("scales", "", ", ".join(scales))
    return facts


def _told(spec: Spec, always: Sequence[str]) -> dict[str, Any]:
    """What is shown of a table of the study: what it changes, and some keys always."""
    shown = spec.model_dump(mode="json", include=set(always))
    return shown | spec.model_dump(mode="json", exclude_defaults=True)


def _common(tables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What several tables have alike, which is said once."""
    if len(tables) < 2:
        return {}
    return {key: value for key, value in tables[0].items() if all(t.get(key) == value for t in tables)}


def _settings(settings: dict[str, Any]) -> Text:
    return Text(_HASH.sub(r"\1…", ", ".join(f"{key} = {_value(value)}" for key, value in settings.items())))


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_value(inner)}' for key, inner in value.items())} }}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _table(*columns: str) -> Table:
    """A table without lines whose columns stand right, the first one excepted."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        left = number == 0  # on a narrow screen the name of a line folds before its figures do
        table.add_column(
            column,
            justify="left" if left else "right",
            no_wrap=not left,
            min_width=16 if left else None,
            overflow="fold",
        )
    return table


def _runs(seen: Outlook) -> Table:
    table = _table("run", "steps", "ckpts", "tokens", "supervised", "padding saved", "disk")
    for run in seen.runs:
        table.add_row(
            run.name, *_run(run.steps, run.checkpoints, run.tokens, run.supervised, run.padded, run.disk)
        )
    if sum(r.seeds for r in seen.runs) > 1:
        names = ("steps", "checkpoints", "tokens", "supervised", "padded", "disk")
        sums = [sum(r.seeds * getattr(r, name) for r in seen.runs) for name in names]
        table.add_row(f"{sum(r.seeds for r in seen.runs)} runs", *_run(*sums), style="bold")
    return table


def _run(steps: int, checkpoints: int, tokens: int, supervised: int, padded: int, disk: int) -> list[str]:
    spared = f"{100 * (1 - tokens / padded):.0f} % ({padded / tokens:.1f}×)"
    return [f"{steps:,}", str(checkpoints), count(tokens), count(supervised), spared, size(disk)]


def _on_runs(seen: Outlook) -> list[str]:
    lengths = [f"{name} {row.total:,.0f} ({row.basis})" for name, row in seen.rows.items()]
    return [
        "A line is one seed of a run. Tokens are put through the model, supervised ones learned from. "
        "Padding saved: against every row padded to max_length, as the paper's code does.",
        f"Mean tokens of a row: {', '.join(lengths)}.",
    ]


def _models(seen: Outlook) -> Table:
    kinds = list(seen.gpus)
    table = _table("model", "weights", "1 GPU", "of 8", "saved", *kinds)
    for model in seen.models:
        fewest = [str(model.fewest[kind] or "–") for kind in kinds]
        table.add_row(
            model.name, _parameters(model), size(model.memory[1].total), size(model.memory[8].total),
            size(model.checkpoint), *fewest,
        )  # fmt: skip
    return table


def _parameters(model: ModelOutlook) -> str:
    if not model.parameters:
        return "unknown"
    return f"{'' if model.exact else '~'}{count(model.parameters)}"


def _gpus(seen: Outlook) -> Table:
    table = _table("GPU", "peak TFLOP/s", "memory", "training", "measuring", "together")
    for kind, hours in seen.gpus.items():
        gpu = hardware.GPUS[kind]
        both = hours.training + hours.measuring
        figures = [_hours(h) for h in (hours.training, hours.measuring, both)]
        table.add_row(kind, f"{gpu.peak / 1e12:.0f}", size(gpu.memory), *figures)
    return table


def _hours(hours: float) -> str:
    return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.2g} h"


def _on_gpus(seen: Outlook) -> str:
    return (
        f"Assumed, not measured: training reaches {100 * seen.mfu:.0f} % of the dense bfloat16 peak (--mfu), "
        f"generation {100 * seen.generation_mfu:.0f} %; an answer takes half its limit of tokens."
    )


def _cells(costs: Sequence[Cost]) -> Table:
    table = _table("kind", "cells", "tokens", "time here", "disk")
    for kind in VERSIONS:
        some = [c for c in costs if c.kind == kind]
        if some:
            table.add_row(
                kind, str(len(some)), count(sum(c.tokens for c in some)),
                here(sum(c.seconds for c in some)), size(sum(c.disk for c in some)),
            )  # fmt: skip
    return table
