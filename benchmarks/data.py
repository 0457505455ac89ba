"""Building a dataset: rows per second of the first pass, verified pairs per second, peak memory.

A synthetic pool in the layout of one row a response (prompt, response, answer, finish_reason) is written a
few thousand rows at a time, with the lengths and the small number of different answers of a real one: 15 kB a
response, 32 responses a query. Then, each timed on its own: the first pass over the pool, in this process and
with workers; the verification of the different pairs of gold and answer, in worker processes; the whole build
once more, with those verdicts in its cache. Memory is that of this process and of all that it started, looked
at ten times a second. The last line is JSON.
"""

import argparse
import contextlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import random
import resource
import tempfile
import threading
import time
from pathlib import Path

import polars as pl
import psutil

from dipscope import __version__
from dipscope.data.building import build, pool, verdict_cache
from dipscope.data.reading.sources import Source, open_table
from dipscope.scoring import verify
from dipscope.scoring.verifiers import Verifiers

SAMPLES = 32  # responses to a query
CHUNK = 8192  # rows of a parquet file
TEXT = (
    "so the sum of these two angles is equal to that of the other one and we get a new equation for x which "
    "can be solved by hand if wait no that is not right because the area must be positive let me check again"
)


def paragraphs(draw, number):
    """Reasoning to pick from: words, some formulas, some turns of thought."""
    made, vocabulary = [], TEXT.split()
    for n in range(number):
        words = " ".join(draw.choices(vocabulary, k=draw.randint(15, 60)))
        over, under = draw.randint(1, 99), draw.randint(2, 99)
        formula = f"\n\n$$\nx_{{{n}}} = \\frac{{{over}}}{{{under}}} + \\sqrt{{{n}}}\n$$"
        turn = draw.choice(("Wait, ", "Alternatively, ", "So ", "Let me check that. ", ""))
        made.append(f"{turn}{words}, θ = {n}°.{formula if n % 4 == 0 else ''}\n\n")
    return made


def response(draw, pieces, size, answer):
    """One response of about `size` characters; one in ten is never closed."""
    text, length = ["<think>\n"], 0
    while length < size:
        text.append(draw.choice(pieces))
        length += len(text[-1])
    if draw.random() < 0.1:
        return "".join(text), "length"
    summary = "".join(draw.choices(pieces, k=5))
    return "".join([*text, "\n</think>\n\n", summary, f"Thus\n\n$$\n\\boxed{{{answer}}}\n$$"]), "stop"


def write(folder, rows, size, seed):
    """The pool as parquet files; returns their bytes and the characters of all responses."""
    draw = random.Random(seed)
    pieces = paragraphs(draw, 3000)
    characters = 0
    for part, start in enumerate(range(0, rows, CHUNK)):
        table = {"prompt": [], "response": [], "answer": [], "finish_reason": []}
        for row in range(start, min(start + CHUNK, rows)):
            query = row // SAMPLES
            gold = f"\\frac{{{query % 97 + 1}}}{{{query % 13 + 2}}}" if query % 2 else str(query)
            said = gold if draw.random() < 0.7 else str(draw.randint(0, 5) + query)
            text, finish = response(draw, pieces, draw.lognormvariate(0, 0.5) * size * 0.85, said)
            characters += len(text)
            for name, value in zip(table, (f"Question {query}: what is x?", text, gold, finish), strict=True):
                table[name].append(value)
        pl.DataFrame(table).write_parquet(folder / f"part-{part:04}.parquet", row_group_size=1024)
    return sum(p.stat().st_size for p in folder.iterdir()), characters


class Watch:
    """Most memory that this process and those it started have held together, in bytes, since `reset`."""

    def __init__(self):
        self.most = 0
        self.over = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while not self.over.wait(0.1):
            self.most = max(self.most, self.now())

    @staticmethod
    def now():
        """What they hold now."""
        held = 0
        for process in (own := psutil.Process(), *own.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                held += process.memory_info().rss
        return held

    def reset(self):
        """The most so far; then counting begins again."""
        most, self.most = max(self.most, self.now()), 0
        return most


def first_pass(table, workers):
    """Seconds of wall and CPU time, with those of the workers, and what was found."""

    def cpu():
        whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(sum(resource.getrusage(who)[:2]) for who in whose)

    started, spent = time.perf_counter(), cpu()
    found = pool.read(table, total=table.rows, workers=workers)
    return time.perf_counter() - started, cpu() - spent, found


def measure(folder, rows, size, seed, workers):
    """Times, rates and peaks of one pool."""
    source = folder / "pool"
    source.mkdir()
    # In a process of its own: what the making takes is not part of the peak.
    with multiprocessing.get_context("spawn").Pool(1) as maker:
        disk, characters = maker.apply(write, (source, rows, size, seed))
    watch = Watch()
    before = watch.now()
    table = open_table(Source(path=str(source)))
    alone, alone_cpu, found = first_pass(table, 1)
    peak_alone = watch.reset()
    read, cpu, again = first_pass(table, workers)
    peak_read = watch.reset()
    assert again == found
    pairs = list(found.pairs)
    with Verifiers(workers) as verifiers:
        next(verifiers.judge([("1", "1")]))  # the start of the workers is not timed
        started = time.perf_counter()
        verdict_cache.verdicts(pairs, verifiers, folder / "cache")
        verified = time.perf_counter() - started
        watch.reset()
        started = time.perf_counter()
        made = build.build(
            table,
            folder / "out",
            build.Rules(variants=("cot", "no_cot", "shuffled_steps")),
            verifiers,
            cache=folder / "cache",
            workers=workers,
        )
        built = time.perf_counter() - started
        peak_build = watch.reset()
    watch.over.set()
    return {
        "responses": rows,
        "characters_per_response": round(characters / rows),
        "pool_bytes": disk,
        "rows_per_s_alone": round(rows / alone),
        "rows_per_cpu_s_alone": round(rows / alone_cpu),
        "rows_per_s": round(rows / read),
        "rows_per_cpu_s": round(rows / cpu),  # on a machine that others use too, this is the steadier one
        "characters_per_s": round(characters / read),
        "pairs": len(pairs),
        "pairs_per_s": round(len(pairs) / verified),
        "workers": workers,
        "build_seconds": round(built, 1),
        "rows_kept": made["variants"]["cot"]["rows"],
        "memory_before": before,
        "peak_read_alone": peak_alone,
        "peak_read": peak_read,
        "peak_build": peak_build,  # with the processes that verify
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=15_000, help="characters of a response")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, help="where the pool is written for the time being")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = measure(Path(folder), options.rows, options.size, options.seed, options.workers)
    versions = {name: importlib.metadata.version(name) for name in ("polars", "math-verify")}
    versions |= {"dipscope": __version__, "python": platform.python_version(), "verifier": verify.VERSION}
    print(json.dumps({"benchmark": "data", **result, "versions": versions}))
