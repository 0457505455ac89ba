"""One checkpoint × its benchmarks → records, through one queue of one engine.

Generation and judging are separate: a record whose scoring rule has changed since is judged again from its
stored text, never generated again. What is on disk already is not asked for twice, except records that ended
in an error: those are tried again each time.
"""

from __future__ import annotations

import math
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from dipscope import records
from dipscope.benchmarks import registry
from dipscope.data.tokenize import opens_thinking, render_prompt, stop_ids
from dipscope.engine.base import Completion, Engine, Request, Sampling, Scored, ScoreRequest
from dipscope.scoring.base import UNJUDGED, Benchmark, Item, Judgement
from dipscope.scoring.thinking import CLOSE, Response, split
from dipscope.workspace import hash_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FLUSH_SECONDS = 20.0
Report = Callable[[int, int, str], None]  # done, total, note


@dataclass(frozen=True)
class Task:
    """One record to be made."""

    benchmark: Benchmark
    item: Item
    sample: int
    probe: str
    prompt_hash: str
    sampling_hash: str
    max_tokens: int

    @property
    def key(self) -> str:
        """Names the task inside one checkpoint."""
        return f"{self.benchmark.name}\t{self.probe}\t{self.item.id}\t{self.sample}"

    @property
    def folder(self) -> str:
        """Where its record goes, below the checkpoint's folder."""
        return f"{self.benchmark.name.replace('/', '__')}/{self.probe}-{self.sampling_hash}"


class Measured(NamedTuple):
    """What a measurement left behind.

    Attributes:
        shards: names of the shards that hold the wanted records.
        tokens: how many were generated now.
        errors: how many of the wanted records ended in an error, by benchmark and reason.
    """

    shards: list[str]
    tokens: int
    errors: dict[tuple[str, str], int]


def tasks(settings: Sequence[Mapping[str, Any]], engine: str) -> list[Task]:
    """Every record that the benchmark settings of a measure cell ask for."""
    wanted: list[Task] = []
    for option in settings:
        benchmark = registry.get(option["name"], option.get("protocol", "strict"), option.get("path"))
        drawn = {k: option[k] for k in ("temperature", "top_p", "top_k", "max_tokens", "seed")}
        generate = hash_json({**drawn, "engine": engine}, 12)
        likelihood = hash_json({"engine": engine}, 12)
        for item in benchmark.items(option["items"], option["split"]):
            said = hash_json(item.prompt, 12)
            for sample in range(option["samples"]):
                cap = option["max_tokens"]
                wanted.append(Task(benchmark, item, sample, "generate", said, generate, cap))
            if option["likelihood"] and len(item.options) > 1:
                asked = hash_json([item.prompt, item.answer_prefix, item.options], 12)
                wanted.append(Task(benchmark, item, 0, "likelihood", asked, likelihood, 0))
    return wanted


def wanted_rows(table: pl.DataFrame, wanted: Sequence[Task]) -> pl.DataFrame:
    """The rows of `table` that answer the tasks as they are asked today, under today's scoring rules."""
    keys = pl.DataFrame(
        [
            (
                t.benchmark.name,
                t.probe,
                t.item.id,
                t.sample,
                t.prompt_hash,
                t.sampling_hash,
                t.benchmark.scorer,
            )
            for t in wanted
        ],
        schema={
            k: records.SCHEMA[k]
            for k in ("benchmark", "probe", "item", "sample", "prompt_hash", "sampling_hash", "scorer")
        },
        orient="row",
    )
    return table.join(keys, on=keys.columns, how="semi")


def wanted_records(
    cells: Iterable[tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]], root: Path
) -> pl.DataFrame:
    """The records that measure cells ask for today, out of the shards that they left.

    Args:
        cells: benchmark settings and outputs of each; with fewer settings than it had, only those are read.
        root: `records` of the workspace.

    Raises:
        DipscopeError: a shard is damaged.
    """
    made: dict[str, list[Task]] = {}  # the cells of a study ask for the same, and items take time to make
    tables = [records.frame([])]
    for settings, outputs in cells:
        key = hash_json([settings, outputs["engine"]])
        wanted = made[key] = made.get(key) or tasks(settings, outputs["engine"])
        folders = {task.folder for task in wanted}
        left = [shard for shard in outputs["shards"] if str(Path(shard).parent) in folders]
        tables.append(wanted_rows(records.read(root / outputs["checkpoint"] / s for s in left), wanted))
    return pl.concat(tables)


def measure(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    checkpoint: str,
    settings: Sequence[Mapping[str, Any]],
    folder: Path,
    report: Report,
) -> Measured:
    """Fill the gaps in the records of the checkpoint that the engine holds.

    Args:
        engine: with the checkpoint's weights in place.
        tokenizer: of the checkpoint.
        checkpoint: content hash of its weights.
        settings: the benchmarks and their options, as planned.
        folder: `records/<checkpoint>` of the workspace.
        report: called as records arrive.
    """
    wanted = tasks(settings, engine.name)
    writer = _Writer(folder, checkpoint, engine.name, tokenizer)
    old = _existing(folder, wanted)
    # What waits for a reward model is no failure: trying again would not give it a verdict.
    waiting = {t.benchmark.name for t in wanted if getattr(t.benchmark, "rubric", None) == "reward"}
    waits = pl.col("benchmark").is_in(waiting) & (pl.col("finish") != "error")
    settled = wanted_rows(old, wanted).filter((pl.col("verdict") != "error") | waits)
    have = set(settled.select(_task_key()).to_series())
    rejudge = _rejudgeable(old, wanted, have)
    writer.total, writer.done, writer.report = len(wanted), len(have), report
    missing = [t for t in wanted if t.key not in have]
    for task in missing:
        if task.key in rejudge:
            writer.judged_again(task, rejudge[task.key])
    missing = [t for t in missing if t.key not in rejudge]
    _generate(engine, tokenizer, [t for t in missing if t.probe == "generate"], settings, writer)
    _score(engine, tokenizer, [t for t in missing if t.probe == "likelihood"], writer)
    writer.flush()
    folders = sorted({t.folder for t in wanted})
    shards = [str(p.relative_to(folder)) for f in folders for p in records.shards(folder / f)]
    return Measured(shards, writer.tokens, dict(sorted(writer.errors.items())))


def _task_key() -> pl.Expr:
    return pl.concat_str(["benchmark", "probe", "item", "sample"], separator="\t").alias("task")


def _existing(folder: Path, wanted: Sequence[Task]) -> pl.DataFrame:
    tables = []
    for name in sorted({t.folder for t in wanted}):
        for path in records.shards(folder / name):
            if records.intact(path):
                tables.append(pl.read_parquet(path))
            else:  # its records are missing now, and so are made again
                path.rename(path.with_suffix(".damaged"))
    return pl.concat(tables) if tables else pl.DataFrame(schema=records.SCHEMA)


def _rejudgeable(old: pl.DataFrame, wanted: Sequence[Task], have: set[str]) -> dict[str, dict[str, Any]]:
    """Generated rows that only lack today's scoring rule, or whose judging failed, by task."""
    asked = {(t.key, t.prompt_hash, t.sampling_hash) for t in wanted if t.probe == "generate"}
    generated = old.filter(pl.col("finish") != "error").with_columns(_task_key())
    return {
        r["task"]: r
        for r in generated.iter_rows(named=True)
        if r["task"] not in have and (r["task"], r["prompt_hash"], r["sampling_hash"]) in asked
    }


def _generate(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    todo: Sequence[Task],
    settings: Sequence[Mapping[str, Any]],
    writer: _Writer,
) -> None:
    options = {o["name"]: o for o in settings}
    stops = stop_ids(tokenizer)
    by_key = {}
    requests = []
    # The longest expected first, so that the end of the queue does not wait for a straggler.
    for task in sorted(todo, key=lambda t: -t.max_tokens):
        o = options[task.benchmark.name]
        sampling = Sampling(o["temperature"], o["top_p"], o["top_k"], task.max_tokens)
        seed = int(hash_json([o["seed"], task.benchmark.name, task.item.id, task.sample], 15), 16)
        prompt = tuple(render_prompt(tokenizer, task.item.prompt))
        by_key[task.key] = task
        requests.append(Request(task.key, prompt, sampling, seed, stops))
    for completion in engine.generate(requests):
        writer.generated(by_key[completion.key], completion)


def _score(engine: Engine, tokenizer: PreTrainedTokenizerBase, todo: Sequence[Task], writer: _Writer) -> None:
    requests, by_key = [], {}
    for task in todo:
        prompt = render_prompt(tokenizer, task.item.prompt)
        by_key[task.key] = task
        for index, option in enumerate(task.item.options):
            before, continuation = _continue(tokenizer, task.item.answer_prefix, option)
            key = f"{task.key}\t{index}"
            requests.append(ScoreRequest(key, (*prompt, *before), continuation))
    arrived: dict[str, dict[int, Scored]] = {}
    for scored in engine.score(requests):
        key, _, place = scored.key.rpartition("\t")
        options = arrived.setdefault(key, {})
        options[int(place)] = scored
        if len(options) == len(by_key[key].item.options):
            writer.scored(by_key[key], [options[i].mean for i in range(len(options))])
            del arrived[key]


def _continue(
    tokenizer: PreTrainedTokenizerBase, prefix: str, option: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of the prefix and of the option after it, cut where both readings agree."""
    whole = tokenizer(prefix + option, add_special_tokens=False)["input_ids"]
    before = tokenizer(prefix, add_special_tokens=False)["input_ids"] if prefix else []
    shared = 0
    while shared < min(len(before), len(whole) - 1) and before[shared] == whole[shared]:
        shared += 1
    return tuple(whole[:shared]), tuple(whole[shared:])


class _Writer:
    """Turns results into rows and rows into shards, a shard every few seconds and at the end."""

    def __init__(
        self, folder: Path, checkpoint: str, engine: str, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.folder, self.checkpoint, self.engine, self.tokenizer = folder, checkpoint, engine, tokenizer
        self.opened = opens_thinking(tokenizer, render_prompt(tokenizer, "x"))
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.flushed = time.monotonic()
        self.total = self.done = self.tokens = 0
        self.errors: Counter[tuple[str, str]] = Counter()
        self.report: Report = lambda done, total, note: None

    def generated(self, task: Task, completion: Completion) -> None:
        """Judge a completion and keep it."""
        text = str(self.tokenizer.decode(list(completion.token_ids), skip_special_tokens=True))
        response = split(text, opened=self.opened)
        if completion.finish == "error":
            judgement = self._failed(task, "the engine gave no completion")
        else:
            judgement = self._judged(task, response)
        self.tokens += len(completion.token_ids)
        self._keep(
            task,
            response,
            judgement,
            finish=completion.finish,
            n_tokens=len(completion.token_ids),
            n_reasoning_tokens=self._reasoning_tokens(completion, response),
        )

    def judged_again(self, task: Task, row: Mapping[str, Any]) -> None:
        """Keep a stored generation under today's scoring rule."""
        response = split(row["text"], opened=self.opened)
        same = {k: row[k] for k in ("finish", "n_tokens", "n_reasoning_tokens")}
        self._keep(task, response, self._judged(task, response), **same)

    def scored(self, task: Task, means: Sequence[float]) -> None:
        """Keep which option the model prefers: the right one stands first, a tie is not a preference."""
        if not all(map(math.isfinite, means)):
            judgement = self._failed(task, "a log-likelihood is not finite")
            none = Response("", "", "", True)
            self._keep(task, none, judgement, finish="error", n_tokens=0, n_reasoning_tokens=0)
            return
        margin = means[0] - max(means[1:])
        chosen = task.item.options[max(range(len(means)), key=lambda i: (means[i], -i))]
        judgement = Judgement.of(margin > 0, chosen)
        response = Response(chosen, "", chosen, True)
        self._keep(task, response, judgement, finish="stop", n_tokens=0, n_reasoning_tokens=0, margin=margin)

    def _judged(self, task: Task, response: Response) -> Judgement:
        """The benchmark's verdict; a scorer that raises costs its record and nothing else."""
        try:
            judgement = task.benchmark.judge(task.item, response)
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            return self._failed(task, f"{told}, in {Path(at.filename).name}:{at.lineno}")
        if judgement.verdict == "error" and judgement is not UNJUDGED:
            self._failed(task, "the scorer failed or took too long")
        return judgement

    def _failed(self, task: Task, reason: str) -> Judgement:
        self.errors[task.benchmark.name, reason] += 1
        return Judgement("error")

    def _reasoning_tokens(self, completion: Completion, response: Response) -> int:
        if not response.reasoning:
            return 0
        close = self.tokenizer.convert_tokens_to_ids(CLOSE)
        if response.closed and close in completion.token_ids:
            return len(completion.token_ids) - 1 - completion.token_ids[::-1].index(close)
        if not response.closed and not response.answer:
            return len(completion.token_ids)
        return len(self.tokenizer(response.reasoning, add_special_tokens=False)["input_ids"])

    def _keep(self, task: Task, response: Response, judgement: Judgement, **more: Any) -> None:
        row = {
            "checkpoint": self.checkpoint,
            "benchmark": task.benchmark.name,
            "domain": task.benchmark.domain,
            "probe": task.probe,
            "item": task.item.id,
            "cluster": task.item.cluster,
            "sample": task.sample,
            "prompt_hash": task.prompt_hash,
            "sampling_hash": task.sampling_hash,
            "engine": self.engine,
            "text": response.text,
            "reasoning": response.reasoning,
            "answer": response.answer,
            "closed": response.closed,
            "extracted": judgement.extracted,
            "verdict": judgement.verdict,
            "score": judgement.score,
            "margin": None,
            "scorer": task.benchmark.scorer,
            **more,
        }
        self.rows.setdefault(task.folder, []).append(row)
        self.done += 1
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()
        note = f"{self.tokens:,} tokens" if self.tokens else ""
        self.report(self.done, self.total, note)

    def flush(self) -> None:
        """Write what has gathered, one shard a folder."""
        for name, rows in self.rows.items():
            records.append(self.folder / name, records.frame(rows))
        self.rows = {}
        self.flushed = time.monotonic()
