"""The analysis as a function: purity, round trip, decomposition, partial studies."""

import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.stats as st
from hypothesis import given, settings
from hypothesis import strategies as hs

from dipscope.analysis.analyze import analyze, from_json, to_json
from dipscope.analysis.results import Curve
from dipscope.errors import DipscopeError
from dipscope.records import SCHEMA
from dipscope.stats.ranks import spearman
from dipscope.study import AnalysisSpec

sys.path.append(str(Path(__file__).parents[1]))
from synthetic_records import study

SPEC = AnalysisSpec(bootstrap=200)
BENCHMARKS = {"game": "in_domain", "logic": "ood_reasoning"}
TRUTH = {"game": (0.2, 0.3, 0.5, 0.7, 0.8), "logic": (0.6, 0.5, 0.3, 0.5, 0.65)}
ARM = ("m", "cot", "cot", 0.0, TRUTH)


@pytest.fixture(scope="module")
def small() -> tuple[pl.DataFrame, pl.DataFrame]:
    return study(
        [ARM], benchmarks=BENCHMARKS, items=40, samples=2, cut=(0, 0.2, 0.3, 0.1, 0), likelihood=TRUTH
    )


def curve(
    records: pl.DataFrame, checkpoints: pl.DataFrame, name: str = "logic", probe: str = "generate"
) -> Curve:
    result = analyze(records, checkpoints, SPEC, "s")
    return next(c for c in result.curves if (c.level, c.name, c.probe) == ("benchmark", name, probe))


def test_same_records_same_bytes(small: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    records, checkpoints = small
    first = to_json(analyze(records, checkpoints, SPEC, "s"))
    again = analyze(records.sample(fraction=1, shuffle=True, seed=1), checkpoints.reverse(), SPEC, "s")
    assert to_json(again) == first
    assert from_json(first) == again


def test_json_that_is_none_is_refused_in_one_line() -> None:
    for text in ("{}", "[]", "no"):
        with pytest.raises(DipscopeError, match="not an analysis"):
            from_json(text)


def test_points_are_the_naive_means(small: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    records, checkpoints = small
    found = curve(records, checkpoints)
    for point in found.points:
        weights = checkpoints.filter(pl.col("step") == point.step)["checkpoint"].unique()
        here = records.filter(
            pl.col("checkpoint").is_in(weights.to_list()),
            pl.col("benchmark") == "logic",
            pl.col("probe") == "generate",
        )
        assert point.score == pytest.approx(here["score"].mean())
        assert point.truncated == pytest.approx((here["finish"] == "length").mean())
        assert point.tokens == pytest.approx(here["n_tokens"].mean())
        assert point.completed == pytest.approx(here.filter(pl.col("finish") == "stop")["score"].mean())
        assert point.upper_bound == pytest.approx(point.score + point.truncated)
        assert point.lower_bound == pytest.approx(point.score)
        assert point.low <= point.score <= point.high
        assert point.coverage == 1.0


def test_losses_add_up(small: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    for c in analyze(*small, SPEC, "s").curves:
        for loss, point in zip(c.losses, c.points, strict=True):
            assert loss.change == pytest.approx(point.score - c.points[0].score, abs=1e-7)
            assert loss.truncation + loss.missing + loss.wrong == pytest.approx(loss.change, abs=1e-7)


@settings(max_examples=30)
@given(
    hs.lists(
        hs.tuples(hs.sampled_from(["correct", "wrong", "missing", "error"]), hs.booleans(), hs.floats(0, 1)),
        min_size=36,
        max_size=36,
    )
)
def test_losses_add_up_for_any_verdicts(outcomes: list[tuple[str, bool, float]]) -> None:
    records, checkpoints = study([ARM], benchmarks={"logic": "ood_reasoning"}, items=6, seeds=(0,))
    rows = records.head(30).to_dicts() + records.tail(6).to_dicts()
    for row, (verdict, cut, score) in zip(rows, outcomes, strict=True):
        row |= {"verdict": verdict, "finish": "length" if cut else "stop", "score": score}
    table = pl.DataFrame(rows, schema=SCHEMA).unique(["checkpoint", "benchmark", "item"], keep="last")
    for c in analyze(table, checkpoints, AnalysisSpec(bootstrap=100), "s").curves:
        for loss, point in zip(c.losses, c.points, strict=True):
            assert loss.truncation + loss.missing + loss.wrong == pytest.approx(loss.change, abs=1e-7)
            assert loss.change == pytest.approx(point.score - c.points[0].score, abs=1e-7)
            assert point.lower_bound - 1e-9 <= point.score <= point.upper_bound + 1e-9


def test_errors_lower_coverage_and_not_the_score(small: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    records, checkpoints = small
    broken = (pl.col("item") == "0003") & (pl.col("checkpoint") == "m-cot-0-20")
    damaged = records.with_columns(
        verdict=pl.when(broken).then(pl.lit("error")).otherwise("verdict"),
        score=pl.when(broken).then(None).otherwise("score"),
    )
    found = curve(damaged, checkpoints)
    assert found.items == 39
    without = curve(records.filter(pl.col("item") != "0003"), checkpoints)
    assert [p.score for p in found.points] == [p.score for p in without.points]
    assert [p.coverage < 1 for p in found.points] == [False, False, True, False, False]


def test_a_missing_answer_is_wrong_and_counted(small: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    records, checkpoints = small
    silent = records.with_columns(
        verdict=pl.when(pl.col("checkpoint") == "m-cot-0-80").then(pl.lit("missing")).otherwise("verdict")
    )
    last = curve(silent, checkpoints).points[-1]
    assert last.missing == pytest.approx(0.5)
    assert last.score < curve(records, checkpoints).points[-1].score


def test_a_study_in_progress(small: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    records, checkpoints = small
    partly = records.filter(
        ~pl.col("checkpoint").is_in(["m-cot-0-80", "m-cot-1-80"])
        | ((pl.col("benchmark") == "game") & (pl.col("item") < "0004"))
    )
    found = curve(partly, checkpoints)
    assert [p.step for p in found.points] == [0, 10, 20, 40]
    nothing = analyze(records.clear(), checkpoints, SPEC, "s")
    assert nothing.curves == () and all(f.verdict == "not tested" and f.needs for f in nothing.findings)
    base = analyze(records.filter(pl.col("checkpoint") == "m-base"), checkpoints, SPEC, "s")
    assert all(c.shape is None and len(c.points) == 1 for c in base.curves)
    assert all(f.verdict == "not tested" for f in base.findings)


def test_one_base_serves_all_runs_and_seeds_are_shown(small: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    found = curve(*small)
    assert set(found.per_seed) == {"0", "1"}
    assert found.per_seed["0"][0] == found.per_seed["1"][0] == found.points[0].score


def test_clusters_widen_the_band() -> None:
    records, checkpoints = study([ARM], benchmarks=BENCHMARKS, items=60)
    copies = pl.concat(
        [records.with_columns(item=pl.col("item") + f"-{i}", cluster=pl.col("item")) for i in range(4)]
    )
    one, four = curve(records, checkpoints), curve(copies, checkpoints)
    alone = curve(copies.with_columns(cluster=pl.lit("")), checkpoints)
    width = [c.points[1].high - c.points[1].low for c in (one, four, alone)]
    assert width[0] == pytest.approx(width[1], rel=0.01)
    assert width[2] < 0.9 * width[0]


def test_mixed_prompts_are_noted(small: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    records, checkpoints = small
    changed = records.with_columns(
        prompt_hash=pl.when(pl.col("checkpoint") == "m-cot-0-80").then(pl.lit("x")).otherwise("prompt_hash")
    )
    assert any("prompts" in note for note in analyze(changed, checkpoints, SPEC, "s").notes)
    assert not analyze(records, checkpoints, SPEC, "s").notes


def test_missing_columns_are_named(small: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    records, checkpoints = small
    with pytest.raises(DipscopeError, match="verdict"):
        analyze(records.drop("verdict"), checkpoints, SPEC, "s")
    with pytest.raises(DipscopeError, match="variant"):
        analyze(records, checkpoints.drop("variant"), SPEC, "s")


@settings(max_examples=40)
@given(hs.lists(hs.tuples(hs.integers(0, 4), hs.integers(0, 4)), min_size=4, max_size=6))
def test_spearman(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, float).T
    rho, p = spearman(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert (rho, p) == (0.0, 1.0)
        return
    assert rho == pytest.approx(st.spearmanr(a, b).statistic)
    x, y = st.rankdata(a), st.rankdata(b)
    others = [abs(np.corrcoef(x, order)[0, 1]) for order in permutations(y)]
    assert p == pytest.approx(np.mean(np.array(others) >= abs(rho) - 1e-9))
