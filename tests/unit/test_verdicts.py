"""What a finding may say: pairing, multiplicity, missing answers, and the word recovery."""

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dipscope.analysis.analyze import analyze
from dipscope.analysis.ledger import Directional, directional
from dipscope.analysis.panel import groups, panels, select_both
from dipscope.analysis.results import Analysis, Curve, Finding
from dipscope.report import figures
from dipscope.stats.paired import Contrast
from dipscope.study import AnalysisSpec

sys.path.append(str(Path(__file__).parents[1]))
from synthetic_records import study

SPEC = AnalysisSpec(bootstrap=400)
LOGIC = {"logic": "ood_reasoning"}


def one(analysis: Analysis, id: str, scope: str = "m/cot/r") -> Finding:
    return next(f for f in analysis.findings if f.id == id and f.scope.startswith(scope))


def domain(analysis: Analysis, name: str, group: str = "m/cot/r") -> Curve:
    return next(c for c in analysis.curves if (c.level, c.name, c.group) == ("domain", name, group))


def said(finding: Finding) -> str:
    return "; ".join(finding.caveats)


def rewrite(records: pl.DataFrame, where: pl.Expr, verdict: str) -> pl.DataFrame:
    score = 1.0 if verdict == "correct" else 0.0
    return records.with_columns(
        verdict=pl.when(where).then(pl.lit(verdict)).otherwise("verdict"),
        score=pl.when(where).then(score).otherwise("score"),
    )


# --- recovery means back at the base ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curve", "items", "label", "verdict", "caveat"),
    [
        ((0.6, 0.4, 0.2, 0.5, 0.7), 400, "dip-and-overshoot", "supported", "last − base"),
        ((0.6, 0.4, 0.2, 0.5, 0.63), 1500, "dip-and-", "supported", "last − base"),
        ((0.6, 0.4, 0.2, 0.5, 0.6), 120, "dip", "inconclusive", "return to the base is not established"),
        ((0.7, 0.4, 0.1, 0.3, 0.4), 400, "partial-recovery", "contradicted", "ends below the base"),
        ((0.7, 0.6, 0.4, 0.3, 0.3), 400, "fall", "contradicted", "no significant fall and rise"),
    ],
)
def test_recovery_is_a_return_to_the_base(
    curve: tuple[float, ...], items: int, label: str, verdict: str, caveat: str
) -> None:
    records, checkpoints = study([("m", "cot", "cot", 0.0, {"logic": curve})], benchmarks=LOGIC, items=items)
    result = analyze(records, checkpoints, SPEC, "s")
    found, shape = one(result, "dip-recovery"), domain(result, "ood_reasoning").shape
    assert shape is not None and shape.label.startswith(label)
    assert found.verdict == verdict and caveat in said(found)
    assert (shape.label == "dip") is (verdict == "inconclusive")


def test_a_dip_smaller_than_the_margin_is_no_recovery() -> None:
    """Significant by numbers of items alone: the curve is flat, and the claim is not supported by it."""
    curve = (0.5, 0.49, 0.488, 0.5, 0.5)
    records, checkpoints = study(
        [("m", "cot", "cot", 0.0, {"logic": curve})], benchmarks=LOGIC, items=1500, samples=2
    )
    result = analyze(records, checkpoints, AnalysisSpec(bootstrap=400, margin=0.1), "s")
    found, shape = one(result, "dip-recovery"), domain(result, "ood_reasoning").shape
    assert shape is not None and shape.label == "flat" and found.verdict == "contradicted"


# --- seeds --------------------------------------------------------------------------------------------------


def test_termination_knows_that_seeds_differ() -> None:
    """One seed's dip is all truncation, the other's is none: two runs do not settle it."""
    steady = {"logic": (0.7,) * 5}
    cut, checkpoints = study(
        [("m", "cot", "cot", 0.0, steady)], benchmarks=LOGIC, cut=(0, 0.3, 0.7, 0.3, 0), items=200
    )
    wrong, _ = study(
        [("m", "cot", "cot", 0.0, {"logic": (0.7, 0.5, 0.2, 0.5, 0.7)})], benchmarks=LOGIC, items=200
    )
    second = pl.col("checkpoint").str.starts_with("m-cot-1-")
    mixed = pl.concat([cut.filter(~second), wrong.filter(second)])
    alike = one(analyze(cut, checkpoints, SPEC, "s"), "termination-dip")
    apart = one(analyze(mixed, checkpoints, SPEC, "s"), "termination-dip")
    assert alike.verdict == "supported"
    assert apart.verdict == "inconclusive"
    assert apart.effect is not None and alike.effect is not None
    assert apart.effect.high - apart.effect.low > 2 * (alike.effect.high - alike.effect.low)


def test_ends_use_the_variance_of_the_whole_curve() -> None:
    """A difference at the last step with two seeds has more than two degrees of freedom behind it."""
    arms = [
        ("m", "cot", "cot", 0.0, {"logic": (0.5, 0.55, 0.6, 0.65, 0.7)}),
        ("m", "no", "no_cot", 0.0, {"logic": (0.5,) * 5}),
    ]
    records, checkpoints = study(arms, benchmarks=LOGIC, items=150)
    found = one(analyze(records, checkpoints, SPEC, "s"), "cot-beats-no-cot", "m/cot/r vs m/no/r")
    assert found.verdict == "supported" and found.effect is not None
    assert found.effect.high - found.effect.low < 0.25


# --- the same data ------------------------------------------------------------------------------------------


def arms(*names: tuple[str, str, float]) -> list[tuple[str, str, str, float, dict[str, tuple[float, ...]]]]:
    return [
        ("m", name, variant, replay, {"logic": (0.7, 0.5, 0.4, 0.4, 0.4)}) for name, variant, replay in names
    ]


@pytest.mark.parametrize("id", ["cot-beats-no-cot", "replay-protects"])
def test_other_data_are_compared_only_with_a_caveat(id: str) -> None:
    made = arms(("cot", "cot", 0.0), ("no", "no_cot", 0.0), ("mix", "cot", 0.25))
    for data, caveat in (
        ({"cot": "a", "no": "a", "mix": "a"}, ""),
        ({"cot": "a", "no": "b", "mix": "b"}, "different data"),
        ({"cot": "", "no": "", "mix": ""}, "is not known"),
    ):
        records, checkpoints = study(made, benchmarks=LOGIC, items=40, data=data)
        notes = said(one(analyze(records, checkpoints, SPEC, "s"), id, "m/"))
        assert caveat in notes and ("queries" in notes) is bool(caveat)


def test_a_match_on_the_same_data_is_preferred() -> None:
    made = arms(("cot", "cot", 0.0), ("own", "no_cot", 0.0), ("foreign", "no_cot", 0.0))
    records, checkpoints = study(
        made, benchmarks=LOGIC, items=40, data={"cot": "a", "own": "a", "foreign": "b"}
    )
    result = analyze(records, checkpoints, SPEC, "s")
    scopes = [f.scope for f in result.findings if f.id == "cot-beats-no-cot"]
    assert scopes == ["m/cot/r vs m/own/r · ood_reasoning"]
    old = analyze(records, checkpoints.drop("data"), SPEC, "s")
    assert len([f for f in old.findings if f.id == "cot-beats-no-cot"]) == 2


# --- two probes ---------------------------------------------------------------------------------------------


def test_probes_are_paired_by_item() -> None:
    truth = {"logic": (0.7, 0.5, 0.3, 0.4, 0.4)}
    records, checkpoints = study(
        [("m", "cot", "cot", 0.0, truth)], benchmarks=LOGIC, items=60, likelihood={"logic": (0.7,) * 5}
    )
    spoken, chosen = pl.col("probe") == "generate", pl.col("probe") == "likelihood"
    partly = records.filter((spoken & (pl.col("item") >= "0010")) | (chosen & (pl.col("item") < "0050")))
    index = {name: i for i, name in enumerate(sorted(set(records["checkpoint"])))}
    tables = panels(partly, index)
    (group,) = groups(checkpoints, index)
    told, kept = tables["generate", "logic"], tables["likelihood", "logic"]
    both = select_both(group, [told], [kept])
    assert both is not None and both.steps == group.steps and both["score"].shape == (2, 40, 10)
    for seed, s in zip(group.seeds, range(2), strict=True):
        for t, step in enumerate(group.steps):
            at = group.runs[seed][step]
            np.testing.assert_array_equal(both["score"][s, :, t], told.values["score"][at, :40])
            np.testing.assert_array_equal(both["score"][s, :, 5 + t], kept.values["score"][at, 10:])
    found = one(analyze(partly, checkpoints, SPEC, "s"), "captured-format")
    assert found.verdict == "supported" and found.items == 40 and "clearest fall" in said(found)


# --- both directions are corrected --------------------------------------------------------------------------


def test_contradicted_is_corrected_for_the_number_of_scopes() -> None:
    def case(value: float, scope: str) -> Directional:
        c = Contrast(value, 0.02, 500.0, value - 0.04, value + 0.04, 0.5, 501)
        return Directional(scope, c, 501, 2, (), "")

    against = case(-0.067, "against")  # p of 'below −2 points' = .0095
    alone = directional("x", "claim", "t", [against], SPEC)
    among = directional("x", "claim", "t", [against, *(case(0.0, str(i)) for i in range(9))], SPEC)
    assert alone[0].verdict == "contradicted" and among[0].verdict == "inconclusive"


# --- safety -------------------------------------------------------------------------------------------------

SAFE = {"game": "in_domain", "harmful": "safety", "worse": "safety", "benign": "safety"}
STEADY = {"game": (0.2, 0.3, 0.5, 0.7, 0.8), "harmful": (0.9,) * 5, "worse": (0.9,) * 5, "benign": (0.8,) * 5}


def changed(verdict: str, share: int, names: tuple[str, ...]) -> Analysis:
    """Every `share`-th item of some benchmarks gets a verdict at the last checkpoints."""
    records, checkpoints = study([("m", "cot", "cot", 0.0, STEADY)], benchmarks=SAFE, items=100)
    where = (
        pl.col("checkpoint").str.ends_with("-80")
        & pl.col("benchmark").is_in(names)
        & (pl.col("item").cast(pl.Int64) % share == 0)
    )
    return analyze(rewrite(records, where, verdict), checkpoints, SPEC, "s")


def test_silence_is_neither_harm_nor_refusal() -> None:
    silent = changed("missing", 2, ("harmful", "worse", "benign"))
    trade, refusal = one(silent, "safety-tradeoff"), one(silent, "over-refusal")
    assert trade.effect is not None and trade.effect.high < -0.3
    assert (trade.verdict, refusal.verdict) == ("inconclusive", "inconclusive")
    assert refusal.p is not None and refusal.p > 0.5
    for found in (trade, refusal):
        assert "responses without an answer, which neither" in said(found)
        assert "ended without an answer that could be read" in said(found)


def test_harm_and_refusal_are_still_found() -> None:
    loud = changed("wrong", 2, ("harmful", "worse", "benign"))
    assert one(loud, "safety-tradeoff").verdict == "supported"
    assert one(loud, "over-refusal").verdict == "contradicted"
    assert (one(loud, "over-refusal").p or 1) < 0.025  # of the opposite, which is the verdict
    assert "neither" not in said(one(loud, "safety-tradeoff"))


def test_the_tradeoff_is_drawn_on_what_is_tested() -> None:
    """Harmful requests only, whatever became of the harmless ones, and the score in domain."""
    result = changed("wrong", 2, ("benign",))
    trade = one(result, "safety-tradeoff")
    safety, benign = domain(result, "safety"), domain(result, "over_refusal")
    assert trade.verdict == "inconclusive" and one(result, "over-refusal").verdict == "contradicted"
    assert trade.effect is not None
    change = safety.points[-1].score - safety.points[0].score
    assert trade.effect.value == pytest.approx(change, abs=1e-7)
    assert benign.points[-1].score < benign.points[0].score - 0.2
    drawn = next(f for f in figures.draw(result) if f.kind == "tradeoff")
    rows = next(t for t in drawn.spec["datasets"].values() if "safety" in t[0])
    assert [r["safety"] for r in rows] == [round(p.score, 5) for p in safety.points]
    assert [r["reasoning"] for r in rows] == [round(p.score, 5) for p in domain(result, "in_domain").points]


# --- models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("models", "tested"), [(4, False), (5, True)])
def test_scaling_needs_five_models(models: int, tested: bool) -> None:
    marks = {"game": "in_domain", **LOGIC}
    made = [
        (
            f"m{i}",
            "cot",
            "cot",
            0.0,
            {"game": (0.2 + 0.1 * i,) * 5, "logic": (0.2 + 0.1 * i, *[0.2 + 0.17 * i] * 4)},
        )
        for i in range(models)
    ]
    records, checkpoints = study(made, benchmarks=marks, seeds=(0,), items=150)
    found = one(analyze(records, checkpoints, SPEC, "s"), "stronger-bases", "cot/r" if tested else "study")
    if tested:
        assert found.verdict == "supported" and found.p == pytest.approx(2 / 120)
    else:
        assert found.verdict == "not tested" and "5 models" in found.needs and "2/24" in found.needs
