"""A workspace with records of written responses, judged as measuring would judge them, without any model."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from dipscope import records, status
from dipscope.cli import app
from dipscope.measure import Task, tasks
from dipscope.scoring.thinking import split
from dipscope.study import Study
from dipscope.workspace import Workspace

ENGINE = "scripted/1"
POINTS = {0: "c0", 2: "c2"}
Say = Callable[[Task, int], str]


def study(benchmarks: list[str], **measure: Any) -> Study:
    """A study of one run with a checkpoint at its start and its end."""
    return Study.model_validate(
        {
            "study": {"name": "s"},
            "models": {"tiny": {"organism": "XS"}},
            "datasets": {"cot": {"source": "countdown", "rows": 64}},
            "recipes": {"r": {"epochs": 1, "batch_size": 32, "checkpoints": [2]}},
            "runs": {"models": ["tiny"], "datasets": ["cot"], "recipes": ["r"]},
            "measure": {"benchmarks": benchmarks, "likelihood": False, **measure},
        }
    )


def workspace(
    root: Path, spec: Study, say: Say, points: Mapping[int, str] = POINTS, **stored: Any
) -> Workspace:
    """What a run would have left behind.

    Args:
        root: the folder.
        spec: the study.
        say: the response to a task at a step.
        points: checkpoints by step; without step 2 the run is not trained yet.
        stored: columns that all records have in the place of what judging gave.
    """
    made = Workspace(root)
    status.remember(spec, made)
    plan, _ = status.recall(root)
    for cell in plan.cells:
        if cell.kind == "base":
            made.complete(cell.id, {"checkpoint": points[0]})
        elif cell.kind == "train" and 2 in points:
            made.complete(cell.id, {"checkpoints": [{"step": 2, "tokens": 64, "checkpoint": points[2]}]})
    settings = [b.settings(spec.measure) for b in plan.benchmarks]
    for step, checkpoint in points.items():
        for task in tasks(settings, ENGINE):
            text = say(task, step)
            keep(root, row(checkpoint, task, text) | stored, task)
    return made


def row(checkpoint: str, task: Task, text: str) -> dict[str, Any]:
    """The record of a response."""
    response = split(text)
    judged = task.benchmark.judge(task.item, response)
    return {
        "checkpoint": checkpoint, "benchmark": task.benchmark.name, "domain": task.benchmark.domain,
        "probe": task.probe, "item": task.item.id, "cluster": task.item.cluster, "sample": task.sample,
        "prompt_hash": task.prompt_hash, "sampling_hash": task.sampling_hash, "engine": ENGINE,
        "text": text, "reasoning": response.reasoning, "answer": response.answer, "closed": response.closed,
        "finish": "stop", "n_tokens": len(text), "n_reasoning_tokens": 0, "extracted": judged.extracted,
        "verdict": judged.verdict, "score": judged.score, "margin": None, "scorer": task.benchmark.scorer,
    }  # fmt: skip


def keep(root: Path, record: Mapping[str, Any], task: Task) -> None:
    """Append a record to the workspace."""
    records.append(root / "records" / record["checkpoint"] / task.folder, records.frame([record]))


def math500(folder: Path, golds: list[str]) -> Path:
    """A file of problems with these answers, in the published layout."""
    path = folder / "math500.jsonl"
    rows = [
        {"problem": f"Problem {i}.", "solution": f"So it is $\\boxed{{{gold}}}$.", "answer": gold}
        for i, gold in enumerate(golds)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def call(verb: Callable[..., None], *arguments: str) -> Any:
    """A verb as the command line calls it; expected errors are raised."""
    return CliRunner().invoke(app, [verb.__name__, *arguments], catch_exceptions=False)
