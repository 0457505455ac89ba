"""What `dipscope judge` puts before a judge: stored responses of a study's benchmarks, by rubric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import polars as pl

from dipscope import records
from dipscope.analysis.panel import BENIGN
from dipscope.errors import DipscopeError
from dipscope.judging import cases, store
from dipscope.judging.cases import Wanted
from dipscope.judging.rubrics import Case
from dipscope.judging.store import View
from dipscope.plan import Plan
from dipscope.scoring.base import Benchmark
from dipscope.workspace import Workspace

REWARD = "reward"


@dataclass(frozen=True)
class Target:
    """The texts of one benchmark under one rubric.

    Attributes:
        rubric: its name, or `reward`.
        probe: where the verdicts go when they join the records.
        texts: what is judged.
    """

    benchmark: str
    rubric: str
    probe: str
    texts: tuple[Wanted, ...]


def chosen(
    plan: Plan, patterns: Sequence[str] | None, rubric: str | None, *, reward: bool
) -> list[Benchmark]:
    """The benchmarks of a study that are to be judged.

    Args:
        plan: of the study.
        patterns: names and globs; None takes all that name a rubric which this kind of judge can serve.
        rubric: asked instead of the benchmarks' own.
        reward: the judge is a reward model.

    Raises:
        DipscopeError: there is none.
    """
    mine = [b.benchmark for b in plan.benchmarks]
    if patterns is not None:
        found = [b for b in mine if any(fnmatchcase(b.name, p) for p in patterns)]
        bare = [b.name for b in found if not (rubric or reward or getattr(b, "rubric", None))]
        if bare:
            what = f"{bare[0]} names no rubric of its own"
            raise DipscopeError(what, "--benchmarks", "Give one with --rubric, such as refusal.")
    else:
        found = [b for b in mine if (own := getattr(b, "rubric", None)) and (own == REWARD) == reward]
    if not found:
        names = ", ".join(b.name for b in mine)
        fix = f"Name some with --benchmarks; the study measures {names}."
        raise DipscopeError("no benchmark of the study fits", "--benchmarks", fix)
    return found


def measured(plan: Plan, workspace: Workspace, names: set[str]) -> pl.DataFrame:
    """The generated records that are there of some benchmarks, of every checkpoint measured so far.

    Raises:
        DipscopeError: there are none.
    """
    from dipscope.measure import wanted_records

    done = []
    for cell in plan.cells:
        outputs = workspace.outputs(cell.id) if cell.kind == "measure" else None
        if outputs is not None:
            asked = [o | {"likelihood": False} for o in cell.settings["benchmarks"] if o["name"] in names]
            done.append((asked, outputs))
    table = records.canonical(wanted_records(done, workspace.root / "records"))
    if table.is_empty():
        fix = "Run the study first: a judge judges what was measured."
        raise DipscopeError("there are no records of these benchmarks yet", str(workspace.root), fix)
    return table


def targets(
    plan: Plan,
    table: pl.DataFrame,
    benchmarks: Sequence[Benchmark],
    *,
    rubric: str | None,
    view: View | None,
    share: float,
    reward: bool,
) -> list[Target]:
    """What is judged under which rubric.

    Verdicts under a benchmark's own rubric and view take the place of its scorer's; others are a probe apart.
    """
    made = []
    counts = {b.benchmark.name: b.items for b in plan.benchmarks}
    for benchmark in benchmarks:
        own_rubric = getattr(benchmark, "rubric", None)
        own_view: View = getattr(benchmark, "view", "answer")
        asked, seen = REWARD if reward else rubric or str(own_rubric), view or own_view
        asked = asked.partition("/")[0]  # versions change, what a benchmark asks for does not
        # What the scorer of a safety benchmark says is refusal, whether or not it names the rubric.
        named = own_rubric or ("refusal" if benchmark.domain == "safety" else None)
        main = named == asked and seen == own_view
        items = {i.id: i for i in benchmark.items(counts[benchmark.name], plan.study.measure.split)}

        def case(item: str, text: str, benchmark: Any = benchmark, items: Any = items) -> Case | None:
            if item not in items:
                return None
            if hasattr(benchmark, "case"):
                return benchmark.case(items[item], text)  # type: ignore[no-any-return]
            harmful = not any(word in benchmark.name for word in BENIGN)
            return Case(items[item].prompt, text, harmful)

        texts = cases.wanted(table, benchmark.name, case, seen, share)
        probe = "generate" if main else f"{asked}-{seen}"
        made.append(Target(benchmark.name, asked, probe, tuple(texts)))
    return made


def checked_view(view: str | None) -> View | None:
    """A view by its name.

    Raises:
        DipscopeError: there is no such view.
    """
    found = next((v for v in store.VIEWS if v == view), None)
    if view is not None and found is None:
        raise DipscopeError(f"there is no view '{view}'", "--view", f"There are {', '.join(store.VIEWS)}.")
    return found
