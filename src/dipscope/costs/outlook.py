"""A study on GPUs: what each run computes, what each model needs, what each GPU type takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dipscope.costs import hardware, memory, shapes
from dipscope.costs.cells import checkpoint, generated, resume_point
from dipscope.costs.rows import Rows, RowTokens
from dipscope.plan import Plan, recipe_of, source_of
from dipscope.study import Recipe
from dipscope.train.schedule import total_steps
from dipscope.workspace import Workspace

WORLDS = (1, 8)  # GPUs for which memory is shown
SIZES = (1, 2, 4, 8, 16, 32)  # numbers of GPUs that are tried for the smallest that holds a model


@dataclass(frozen=True)
class RunOutlook:
    """One run, or its equals with other seeds. Tokens, work and disk are of one of them.

    Attributes:
        name: model/dataset/recipe.
        model: name of its model.
        data: name of its dataset.
        seeds: how many runs it stands for.
        steps: optimizer steps.
        checkpoints: saved and measured, the base aside.
        tokens: put through the model in training: rows · mean length.
        supervised: of these, learned from.
        padded: what they would be with every row padded to `max_length`, as the reference does.
        flops: of training, without padding: tokens · `Shape.flops`.
        generated: tokens of its measurements, an expectation.
        generate_flops: of these: 2 for a parameter and token.
        disk: bytes of its checkpoints.
    """

    name: str
    model: str
    data: str
    seeds: int
    steps: int
    checkpoints: int
    tokens: int
    supervised: int
    padded: int
    flops: float
    generated: int
    generate_flops: float
    disk: int

    @property
    def saved(self) -> float:
        """The share of the padded tokens that is not computed, 0 to 1."""
        return 1 - self.tokens / self.padded


@dataclass(frozen=True)
class ModelOutlook:
    """What one model needs while it trains, with the recipe of the study that needs most.

    Attributes:
        name: as in the study.
        parameters: how many; 0 where that is not known.
        exact: whether they follow from the model's shape, and not from its name or files.
        checkpoint: bytes of one.
        resume: bytes on disk while a run is at work.
        memory: number of GPUs → what each of them holds.
        fewest: GPU type → the fewest of `SIZES` that hold it; None if none does.
    """

    name: str
    parameters: int
    exact: bool
    checkpoint: int
    resume: int
    memory: dict[int, memory.Memory]
    fewest: dict[str, int | None]


@dataclass(frozen=True)
class GpuHours:
    """GPU-hours of all runs and seeds of a study on one type of GPU."""

    training: float
    measuring: float


@dataclass(frozen=True)
class Outlook:
    """A whole study: runs, models, GPU types, and what the figures rest on."""

    runs: tuple[RunOutlook, ...]
    models: tuple[ModelOutlook, ...]
    gpus: dict[str, GpuHours]
    rows: dict[str, RowTokens]
    mfu: float
    generation_mfu: float = hardware.GENERATION_MFU
    notes: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        made = asdict(self)
        for run, shown in zip(self.runs, made["runs"], strict=True):
            shown["padding_saved"] = run.saved
        for model, shown in zip(self.models, made["models"], strict=True):
            for world, parts in model.memory.items():
                shown["memory"][world]["total"] = parts.total
        return made


def outlook(plan: Plan, workspace: Workspace | None = None, mfu: float = hardware.ASSUMED_MFU) -> Outlook:
    """What a study takes on GPUs, all of it, whether or not parts are done.

    Args:
        plan: of the study.
        workspace: where tokenized tables may stand, whose lengths then count.
        mfu: share of a GPU's peak that training is taken to reach.
    """
    rows = Rows(plan, workspace)
    lengths: dict[str, RowTokens] = {}
    runs: dict[str, RunOutlook] = {}
    needs: dict[str, list[tuple[Recipe, int]]] = {}
    bases: dict[str, float] = {}
    for run, base, trained, steps in plan.runs:
        cell = plan.cell(trained)
        recipe, tokenized = recipe_of(cell.settings), plan.cell(cell.needs[1])
        data = plan.cell(tokenized.needs[1])
        row = rows.tokenized(tokenized)
        lengths[run.dataset] = row
        needs.setdefault(run.model, []).append((recipe, row.longest))
        if run.group in runs:
            continue
        model = plan.study.models[run.model]
        parameters = shapes.parameter_count(model)
        shape = shapes.shape_of(model) or shapes.typical(parameters)
        total = total_steps(recipe, data.settings["rows"])
        seen = total * recipe.batch_size
        once = generated([b.settings(plan.study.measure) for b in plan.benchmarks])
        bases[base] = 2 * parameters * once
        runs[run.group] = RunOutlook(
            name=run.group,
            model=run.model,
            data=run.dataset,
            seeds=len(plan.study.study.seeds),
            steps=total,
            checkpoints=len(steps),
            tokens=round(seen * row.total),
            supervised=round(seen * row.target),
            padded=seen * recipe.max_length,
            flops=seen * row.total * shape.flops(row.attended),
            generated=once * len(steps),
            generate_flops=2.0 * parameters * once * len(steps),
            disk=len(steps) * checkpoint(parameters, recipe),
        )
    made = tuple(runs.values())
    training = sum(r.seeds * r.flops for r in made)
    measuring = sum(r.seeds * r.generate_flops for r in made) + sum(bases.values())
    return Outlook(
        runs=made,
        models=tuple(_model(plan, name, wanted) for name, wanted in needs.items()),
        gpus={
            name: GpuHours(
                hardware.hours(training, gpu, mfu), hardware.hours(measuring, gpu, hardware.GENERATION_MFU)
            )
            for name, gpu in hardware.GPUS.items()
        },
        rows=lengths,
        mfu=mfu,
        notes=(*plan.study.study.notes, *_unpinned(plan), *(b.fetches for b in plan.benchmarks if b.fetches)),
    )


def _model(plan: Plan, name: str, wanted: Sequence[tuple[Recipe, int]]) -> ModelOutlook:
    model = plan.study.models[name]
    parameters, shape = shapes.parameter_count(model), shapes.shape_of(model)
    used = shape or shapes.typical(parameters)

    def hungriest(world: int) -> memory.Memory:
        return max((memory.training(used, r, n, world) for r, n in wanted), key=lambda m: m.total)

    totals = {world: hungriest(world).total for world in SIZES}
    return ModelOutlook(
        name=name,
        parameters=parameters,
        exact=shape is not None,
        checkpoint=max(checkpoint(parameters, recipe) for recipe, _ in wanted),
        resume=max(resume_point(used.adapters(r.lora) if r.lora else parameters, r) for r, _ in wanted),
        memory={world: hungriest(world) for world in WORLDS},
        fewest={
            kind: next((w for w, need in totals.items() if need <= hardware.USABLE * gpu.memory), None)
            for kind, gpu in hardware.GPUS.items()
        },
    )


def _unpinned(plan: Plan) -> list[str]:
    """What a repetition of this study may find changed on the Hub."""
    study, runs = plan.study, plan.study.expand()
    models = [study.models[name] for name in dict.fromkeys(r.model for r in runs)]
    loose = [m.hub for m in models if m.hub and m.revision is None]
    for name in dict.fromkeys(part for r in runs for part in (r.dataset, *study.datasets[r.dataset].mix)):
        dataset = study.datasets.get(name)
        if dataset is not None and dataset.hub and source_of(dataset).pinned().revision is None:
            loose.append(dataset.hub)
    if not loose:
        return []
    return [f"Not pinned to a revision, so what the default branch holds is read: {', '.join(loose)}."]
