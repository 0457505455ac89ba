"""Any task of lm-eval, `lm_eval/<task>?filter=…&metric=…&shots=…`: its prompts and metric, our records.

A prompt is what lm-eval gives to a model without chat template, as the user turn. What follows the thinking
is cut at the task's stop strings and scored by its filter and metric. Options of a multiple-choice task are
our likelihood probe, which normalises otherwise than lm-eval (docs/benchmarks.md); what a model writes on
such a task is read by a rule of our own.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import re
from collections import Counter
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dipscope.benchmarks import lm_eval_worker, own
from dipscope.benchmarks.items import choose, item_id
from dipscope.benchmarks.placeless import Placeless
from dipscope.errors import DipscopeError
from dipscope.scoring import choice
from dipscope.scoring.answers import final_answer
from dipscope.scoring.base import MISSING, Benchmark, Item, Judgement, Split
from dipscope.scoring.process import Kept
from dipscope.scoring.thinking import Response
from dipscope.workspace import hash_file

FAMILY = "lm_eval/"
OPTIONS = ("filter", "metric", "shots")
PATIENCE = 60.0  # seconds for one verdict; most take milliseconds
NO_MATCH = "[invalid]"  # what lm-eval's regex filters leave where nothing matches
# The worker finds the data where they were loaded, and fetches nothing.
_CACHES = ("HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_TASK = re.compile(
    rb"^[\"']?task[\"']?:[ \t]*[\"']?([^\s\"'#\[{][^\"'#\n\r]*?)[\"']?[ \t]*(?:#.*)?\r?$", re.M
)


def get(name: str, path: str | None = None) -> Benchmark:
    """The benchmark of a task; its data are loaded when its items are asked for.

    Args:
        name: `lm_eval/<task>`, and after `?` any of filter, metric and shots.
        path: a YAML file of the user's that defines the task; else it is one that lm-eval has.

    Raises:
        DipscopeError: lm-eval is not installed; there is no such task, option or file.
    """
    try:
        installed = version("lm-eval")
    except PackageNotFoundError:
        fix = "pip install 'lm-eval>=0.4.13', or measure without it."
        raise DipscopeError("lm-eval is not installed", name, fix) from None
    task, _, query = name.removeprefix(FAMILY).partition("?")
    options = _options(name, query)
    file = _file(name, task, path)
    return _made(name, file, f"lm_eval/1+lm-eval-{installed}", hash_file(file)[:12], tuple(options.items()))


@cache
def _made(name: str, file: Path, rule: str, digest: str, options: tuple[tuple[str, str], ...]) -> Benchmark:
    # Kept, so that a task is loaded once in a process.
    return Task(name, file, f"{rule}+{digest}", dict(options))


def _options(name: str, query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, _, text = part.partition("=")
        if key not in OPTIONS:
            raise DipscopeError(f"there is no option '{key}'", name, f"Options are {', '.join(OPTIONS)}.")
        if key == "shots" and not text.isdecimal():
            raise DipscopeError(f"'{text}' is no number of examples", name, "Write it as shots=5.")
        options[key] = text
    return options


def _file(name: str, task: str, path: str | None) -> Path:
    if path is not None:
        file = Path(path).expanduser()
        where = f'measure.benchmark."{name}".path'
        if not file.is_file():
            raise DipscopeError(f"there is no file '{path}'", where, "Check the path.")
        if (found := _defined(file)) != task:
            what = f"the file defines the task '{found}'" if found else "the file defines no task"
            raise DipscopeError(what, where, f"It needs the line `task: {task}`.")
        return file.resolve()
    known = _known()
    if task not in known:
        near = difflib.get_close_matches(task, known, n=3)
        near = near or [other for other in sorted(known) if other.startswith(f"{task}_")][:3]
        fix = f"Did you mean {' or '.join(FAMILY + other for other in near)}?" if near else ""
        fix = fix or "`lm-eval ls tasks` lists them; of a group name the tasks one by one."
        raise DipscopeError(f"lm-eval has no task '{task}'", name, fix)
    return known[task]


def _defined(file: Path) -> str | None:
    found = _TASK.search(file.read_bytes())
    return found[1].decode() if found else None


@cache
def _known() -> dict[str, Path]:
    """lm-eval's tasks and their files. Its own index takes ten seconds to parse them all."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None and spec.submodule_search_locations
    files = sorted((Path(spec.submodule_search_locations[0]) / "tasks").rglob("*.yaml"))
    return {task: file for file in files if (task := _defined(file)) is not None}


class Task(Placeless):
    """One task of lm-eval.

    Args:
        name: as the study names it.
        file: its YAML file.
        scorer: rule, version of lm-eval and hash of the file.
        options: filter, metric and shots, where they are not the task's first or own.
    """

    max_tokens = 2048

    def __init__(self, name: str, file: Path, scorer: str, options: dict[str, str]) -> None:
        self.name, self.file, self.scorer, self.options = name, file, scorer, options

    def items(self, n: int, split: Split) -> list[Item]:
        """The first `n` items in the order of their hashes; the test split is all that lm-eval evaluates.

        Raises:
            DipscopeError: the task cannot be loaded or is of a kind that is not supported; the dev split.
        """
        return choose(self._loaded[0], n, split, whole=True)

    def judge(self, item: Item, response: Response) -> Judgement:
        """lm-eval's score where the task generates; see docs/benchmarks.md for the other kinds."""
        if not (response.closed and response.answer.strip()):
            return MISSING
        if "right" in item.gold:
            return _chosen(item.gold["choices"], item.gold["right"], response.answer)
        if "continuation" in item.gold:
            # The target is the greedy continuation, as lm-eval asks, when a greedy answer begins with it.
            said = response.answer.lstrip()
            wanted = item.gold["continuation"].strip()
            return Judgement.of(said.startswith(wanted), said[: max(len(wanted), 40)])
        text = response.answer
        for stop in item.gold["until"]:
            text = text.partition(stop)[0] if stop else text
        reply = self._loaded[1].ask({"index": item.gold["index"], "key": item.gold["key"], "text": text})
        if "error" in reply or not 0 <= reply["score"] <= 1:
            return Judgement("error")
        score, left = reply["score"], reply["extracted"]
        if left == NO_MATCH and score == 0:
            return MISSING
        return Judgement("correct" if score == 1 else "wrong", score, left)

    @cached_property
    def _loaded(self) -> tuple[list[Item], Kept]:
        shots = self.options.get("shots")
        try:
            task = lm_eval_worker.load(str(self.file), None if shots is None else int(shots))
            chosen = ("", "")
            if task.OUTPUT_TYPE == "generate_until":
                wanted = (self.options.get("filter", ""), self.options.get("metric", ""))
                chosen = lm_eval_worker.choose(task, *wanted)
            items = _items(task)
        except lm_eval_worker.Refused as error:
            what, fix = f"this task of lm-eval's cannot be measured here: {error}", "Measure without it."
            raise DipscopeError(what, self.name, fix) from None
        except Exception as error:  # lm-eval, its tasks' own code, datasets
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            fix = "Its data come through the package datasets, from the Hub or where its YAML says."
            raise DipscopeError(f"lm-eval cannot load the task ({reason})", self.name, fix) from error
        return items, _worker(str(self.file), *chosen)


def _items(task: Any) -> list[Item]:
    seen: Counter[str] = Counter()
    items = []
    for index, asked in enumerate(lm_eval_worker.requests(task)):
        key = lm_eval_worker.key(asked[0].doc)
        seen[key] += 1  # data may repeat a row, and lm-eval counts each
        items.append(_item(task, asked, index, key, item_id(key, str(seen[key]))))
    return items


def _item(task: Any, asked: list[Any], index: int, key: str, name: str) -> Item:
    doc, prompt = asked[0].doc, asked[0].args[0]
    if task.OUTPUT_TYPE == "generate_until":
        until = asked[0].args[1].get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        return Item(name, prompt, {"index": index, "key": key, "until": stops})
    if task.OUTPUT_TYPE == "loglikelihood":
        return Item(name, prompt, {"continuation": asked[0].args[1]})
    choices = [str(option) for option in task.doc_to_choice(doc)]
    gold = task.doc_to_target(doc)
    right = [choices.index(g) if isinstance(g, str) else int(g) for g in _listed(gold)]
    # With mutual information lm-eval asks for the options once more, without the prompt.
    continuations = [one.args[1] for one in asked[: len(choices)]]
    first = continuations[right[0]]
    others = [c for i, c in enumerate(continuations) if i not in right and c != first]
    options = (first, *dict.fromkeys(others))
    return Item(name, prompt, {"choices": choices, "right": right}, options=options)


def _listed(gold: Any) -> list[Any]:
    return gold if isinstance(gold, list) else [gold]


def _chosen(choices: list[str], right: list[int], answer: str) -> Judgement:
    """The option that an answer names: its text alone, else as multiple choice is read, by letter."""
    said = own.normal(final_answer(answer) or answer.strip().partition("\n")[0])
    for place, option in enumerate(choices):
        if said == own.normal(option):
            return Judgement.of(place in right, option)
    letters = choice.LETTERS[: len(choices)]
    letter = choice.strict(answer, choices) if len(choices) == len(letters) else None
    return MISSING if letter is None else Judgement.of(letters.index(letter) in right, letter)


def _worker(path: str, filter_name: str, metric: str) -> Kept:
    """The process that judges one task."""
    environment = {name: os.environ[name] for name in _CACHES if name in os.environ} | _OFFLINE
    wanted = {"path": path, "filter": filter_name, "metric": metric, "environment": environment}
    return Kept(lm_eval_worker.__name__, PATIENCE, json.dumps(wanted))
