"""lm-eval's side of `lm_eval/<task>`: loads a task, builds its requests, and judges in a process of its own.

Requests are built by lm-eval itself, in the order of its data and from the seeds of its evaluator, so that
few-shot examples are those that it draws. The process that judges is sealed once the task is loaded: filters
and metrics run on text that a model wrote.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import sys
from typing import Any

from dipscope.benchmarks.items import item_id
from dipscope.scoring.process import serve_objects

MEMORY = 16 << 30
SEED, FEWSHOT_SEED = 0, 1234  # lm-eval's own: of `random`, and of numpy and the few-shot examples
SHOWN = 500  # characters of what a filter left
TYPES = ("generate_until", "multiple_choice", "loglikelihood")


class Refused(Exception):
    """The task cannot be measured here; the text says why."""


def load(path: str, shots: int | None = None) -> Any:
    """The task of a YAML file.

    Chance is as lm-eval's evaluator sets it, and as it was afterwards; what lm-eval prints goes nowhere.

    Args:
        path: the YAML file.
        shots: few-shot examples, where not the task's own number.

    Raises:
        Refused: it is of a kind that is not supported.
    """
    import numpy as np

    before, before_numpy = random.getstate(), np.random.get_state()
    random.seed(SEED)
    np.random.seed(FEWSHOT_SEED)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            from lm_eval.tasks import TaskManager

            (task,) = TaskManager(include_defaults=False).load(path)["tasks"].values()
    finally:
        random.setstate(before)
        np.random.set_state(before_numpy)
    _check(task)
    if shots is not None:
        task.set_config("num_fewshot", shots)
    task.set_fewshot_seed(FEWSHOT_SEED)
    return task


def _check(task: Any) -> None:
    from lm_eval.api.task import ConfigurableTask

    why = ""
    if not isinstance(task, ConfigurableTask):
        why = "it is a class of its own"
    elif task.config.unsafe_code:
        why = "its metric runs code of the model's in this process"
    elif task.config.doc_to_image or task.config.doc_to_audio:
        why = "it asks about images or sound"
    elif task.config.repeats > 1:
        why = f"it draws {task.config.repeats} answers an item and filters them together"
    elif task.OUTPUT_TYPE not in TYPES:
        why = f"its kind is {task.OUTPUT_TYPE}, not {', '.join(TYPES)}"
    elif task.multiple_input:
        why = "its options stand in the prompt, one prompt an option"
    elif task.OUTPUT_TYPE == "loglikelihood" and "acc" not in task.aggregation():
        why = "it asks for a perplexity"
    if why:
        raise Refused(why)


def choose(task: Any, wanted_filter: str, wanted_metric: str) -> tuple[str, str]:
    """Filter and metric that give the score of a generation task: the task's first, or those that are named.

    Raises:
        Refused: there is none of that name, or the metric is no mean over items of which more is better.
    """
    from lm_eval.api.registry import get_aggregation

    # lm-eval has no public way to its filters.
    filters, metrics = [f.name for f in task._filters], list(task.aggregation())
    for kind, wanted, known in (("filter", wanted_filter, filters), ("metric", wanted_metric, metrics)):
        if wanted and wanted not in known:
            raise Refused(f"it has no {kind} '{wanted}', but {', '.join(known)}")
    metric = wanted_metric or metrics[0]
    if task.aggregation()[metric] is not get_aggregation("mean") or not task.higher_is_better()[metric]:
        raise Refused(f"its metric '{metric}' is no mean over items of which more is better")
    return wanted_filter or filters[0], metric


def requests(task: Any) -> list[list[Any]]:
    """lm-eval's requests of every item, in the order of its data."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        task.build_all_requests()
    found: dict[int, list[Any]] = {}
    for instance in task.instances:
        found.setdefault(instance.doc_id, []).append(instance)
    return list(found.values())


def key(doc: Any) -> str:
    """Content hash of an item's row."""
    return item_id(json.dumps(doc, sort_keys=True, default=str))


def score(task: Any, doc: Any, text: str, filter_name: str, metric: str) -> tuple[float, str]:
    """lm-eval's score of one answer, and what its filter left of it."""
    from lm_eval.api.instance import Instance

    instance = Instance("generate_until", doc, ("", {}), 0, resps=[text])
    (chosen,) = (f for f in task._filters if f.name == filter_name)
    chosen.apply([instance])
    left = instance.filtered_resps[filter_name]
    return float(task.process_results(doc, [left])[metric]), str(left)[:SHOWN]


def main() -> None:
    """Serve until standard input ends. The argument is a JSON object: environment, path, filter, metric."""
    wanted = json.loads(sys.argv[1])
    os.environ.update(wanted["environment"])
    task = load(wanted["path"])
    docs = task.task_docs

    def reply(ask: dict[str, Any]) -> dict[str, Any]:
        doc = docs[ask["index"]]
        if key(doc) != ask["key"]:
            raise ValueError("the data of the task have changed")
        value, left = score(task, doc, ask["text"], wanted["filter"], wanted["metric"])
        return {"score": value, "extracted": left}

    serve_objects(reply, MEMORY)


if __name__ == "__main__":
    main()
