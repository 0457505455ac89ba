"""The ledger of a fixed study whose truths are known."""

import sys
from pathlib import Path

import pytest

from dipscope.analysis.analyze import analyze
from dipscope.analysis.results import Analysis, Finding
from dipscope.study import AnalysisSpec

sys.path.append(str(Path(__file__).parents[1]))
from synthetic_records import study

BENCHMARKS = {
    "game": "in_domain", "logic": "ood_reasoning", "sort": "ood_reasoning", "facts": "ood_general",
    "harmful": "safety", "benign": "safety",
}  # fmt: skip
DIP = (0.6, 0.5, 0.3, 0.5, 0.65)
COT = {
    "game": (0.2, 0.3, 0.5, 0.7, 0.8), "logic": DIP, "sort": DIP, "facts": (0.7, 0.5, 0.3, 0.3, 0.3),
    "harmful": (0.9, 0.8, 0.7, 0.6, 0.6), "benign": (0.8, 0.7, 0.6, 0.5, 0.5),
}  # fmt: skip
NO_COT = {
    "game": (0.2, 0.3, 0.4, 0.4, 0.45), "logic": (0.6,) * 5, "sort": (0.6,) * 5, "facts": (0.7,) * 5,
    "harmful": (0.9,) * 5, "benign": (0.8,) * 5,
}  # fmt: skip
REPLAY = {**COT, "facts": (0.7, 0.65, 0.6, 0.6, 0.65)}
LIKELIHOOD = {"facts": (0.7,) * 5, "logic": (0.6,) * 5}


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    arms = [
        ("m", "cot", "cot", 0.0, COT),
        ("m", "nocot", "no_cot", 0.0, NO_COT),
        ("m", "mix", "cot", 0.25, REPLAY),
    ]
    records, checkpoints = study(arms, benchmarks=BENCHMARKS, likelihood=LIKELIHOOD)
    return analyze(records, checkpoints, AnalysisSpec(bootstrap=1000), "golden")


def verdicts(analysis: Analysis, id: str) -> dict[str, str]:
    return {f.scope: f.verdict for f in analysis.findings if f.id == id}


@pytest.mark.parametrize(
    ("id", "scope", "verdict"),
    [
        ("in-domain-gain", "m/cot/r", "supported"),
        ("dip-recovery", "m/cot/r · ood_reasoning", "supported"),
        ("dip-recovery", "m/cot/r · ood_general", "contradicted"),
        ("captured-format", "m/cot/r · ood_general", "supported"),
        ("captured-format", "m/cot/r · ood_reasoning", "supported"),
        ("captured-format", "m/nocot/r · ood_general", "not tested"),
        ("length-surge", "m/cot/r · in_domain", "supported"),
        ("early-understates", "m/cot/r · ood_reasoning", "supported"),
        ("termination-dip", "m/cot/r · ood_reasoning", "contradicted"),
        ("cot-beats-no-cot", "m/cot/r vs m/nocot/r · in_domain", "supported"),
        ("cot-beats-no-cot", "m/cot/r vs m/nocot/r · ood_general", "contradicted"),
        ("cot-beats-shuffled-steps", "study", "not tested"),
        ("replay-protects", "m/mix/r vs m/cot/r · ood_general", "supported"),
        ("safety-tradeoff", "m/cot/r", "supported"),
        ("safety-cost-of-cot", "m/nocot/r vs m/cot/r · safety", "supported"),
        ("over-refusal", "m/cot/r", "contradicted"),
        ("stronger-bases", "study", "not tested"),
    ],
)
def test_ledger(analysis: Analysis, id: str, scope: str, verdict: str) -> None:
    assert verdicts(analysis, id)[scope] == verdict


def test_no_dip_is_claimed_where_there_is_none(analysis: Analysis) -> None:
    found = verdicts(analysis, "dip-recovery")
    assert all(v != "supported" for scope, v in found.items() if scope.startswith("m/nocot"))


def test_every_line_is_complete(analysis: Analysis) -> None:
    for f in analysis.findings:
        if f.verdict == "not tested":
            assert f.needs and f.effect is None and f.p is None, f
        else:
            assert f.test and f.figure and f.items > 0 and f.seeds == 2, f
            assert f.effect is not None and f.effect.low <= f.effect.value <= f.effect.high, f
            assert f.p is not None and 0 <= f.p <= 1, f


def test_numbers_stand_in_the_right_place(analysis: Analysis) -> None:
    gain = next(f for f in analysis.findings if (f.id, f.scope) == ("in-domain-gain", "m/cot/r"))
    assert gain.effect is not None and gain.effect.low < 0.6 < gain.effect.high
    dip = next(
        c
        for c in analysis.curves
        if (c.group, c.level, c.name, c.probe) == ("m/cot/r", "domain", "ood_reasoning", "generate")
    )
    assert dip.shape is not None and dip.shape.trough_step == 20
    assert dip.items == 240 and dip.seeds == (0, 1)


def _one(analysis: Analysis, id: str, scope: str) -> Finding:
    return next(f for f in analysis.findings if (f.id, f.scope) == (id, scope))


def test_a_dip_that_is_only_truncation_is_called_so() -> None:
    steady = dict.fromkeys(BENCHMARKS, (0.7,) * 5)
    records, checkpoints = study(
        [("m", "cot", "cot", 0.0, steady)], benchmarks=BENCHMARKS, cut=(0, 0.3, 0.6, 0.2, 0)
    )
    result = analyze(records, checkpoints, AnalysisSpec(bootstrap=1000), "cut")
    finding = _one(result, "termination-dip", "m/cot/r · ood_reasoning")
    assert finding.verdict == "supported"
    assert any("cut off" in caveat for caveat in finding.caveats)
    curve = next(c for c in result.curves if (c.level, c.name) == ("domain", "ood_reasoning"))
    assert curve.shape is not None and curve.shape.p_dip_holm < 0.05 < (curve.shape.p_dip_completed or 0)
    trough = curve.losses[2]
    assert trough.truncation < -0.3 and abs(trough.wrong) < -trough.truncation
    # When nothing completes at the trough, the bound with truncated responses as right decides.
    records, checkpoints = study(
        [("m", "cot", "cot", 0.0, steady)], benchmarks=BENCHMARKS, cut=(0, 0.3, 1, 0.2, 0)
    )
    result = analyze(records, checkpoints, AnalysisSpec(bootstrap=1000), "cut")
    finding = _one(result, "termination-dip", "m/cot/r · ood_reasoning")
    assert finding.verdict == "supported" and "with truncated as right" in finding.test


def test_scaling_over_models() -> None:
    arms = []
    for i in range(6):
        base = 0.2 + 0.1 * i
        profile = (base, *[base + 0.05 * i] * 4)
        arms.append((f"m{i}", "cot", "cot", 0.0, dict.fromkeys(BENCHMARKS, profile)))
    records, checkpoints = study(arms, benchmarks=BENCHMARKS, seeds=(0,), items=60)
    result = analyze(records, checkpoints, AnalysisSpec(bootstrap=400), "scale")
    finding = _one(result, "stronger-bases", "cot/r · ood_reasoning")
    assert finding.effect is not None and finding.effect.value > 0.7
    assert "one training seed" in _one(result, "in-domain-gain", "m1/cot/r").caveats
