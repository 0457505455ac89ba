"""Wording shared by the page and the terminal: names, numbers with their intervals, the summary sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import floor, isfinite, log10

from dipscope.analysis.results import Analysis, Curve, Estimate, Finding, Shape, dipped

DOMAINS = {
    "in_domain": "In domain",
    "ood_reasoning": "Reasoning, out of domain",
    "ood_general": "General, out of domain",
    "safety": "Safety",
}
_MORE_DOMAINS = {"over_refusal": "Harmless requests answered"}
VERDICTS = ("supported", "contradicted", "inconclusive", "not tested")
MINUS = "\u2212"

# C0 and C1 controls except tab and newline, lone surrogates, and the marks that reorder text around them.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Text that can be encoded and cannot steer a terminal or reorder a line.

    C0 controls become their visible pictures, everything else unsafe becomes U+FFFD.
    """
    return _UNSAFE.sub(_visible, text.replace("\r\n", "\n"))


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "\ufffd"


def domain_title(domain: str) -> str:
    """A domain's name for a reader."""
    return (DOMAINS | _MORE_DOMAINS).get(domain, clean(domain).replace("_", " ").capitalize())


def short_names(curves: Iterable[Curve]) -> dict[str, str]:
    """Group → the parts of model, dataset and recipe in which the groups differ; in order of appearance."""
    parts = {c.group: (c.model, c.dataset, c.recipe) for c in curves}
    varying = [i for i in range(3) if len({p[i] for p in parts.values()}) > 1] or [1]
    names = {group: clean(" · ".join(p[i] for i in varying)) for group, p in parts.items()}
    unique = len(set(names.values())) == len(names)
    return names if unique else {group: clean(group) for group in names}


def signed(value: float, decimals: int, *, plus: bool = True) -> str:
    """A number with a true minus sign, and a plus where asked."""
    rounded = round(value, decimals) + 0.0
    sign = MINUS if rounded < 0 else "+" if plus and rounded > 0 else ""
    return f"{sign}{abs(rounded):.{decimals}f}"


def decimals(half_width: float) -> int:
    """How many decimals an interval supports: about two digits of its half-width, none from 3 units on."""
    if not isfinite(half_width) or half_width >= 3:
        return 0
    return 1 if half_width >= 1 or half_width <= 0 else min(4, 1 - floor(log10(half_width)))


def percent(value: float, half_width: float = 0.0) -> str:
    """A score in [0, 1] as a percentage with at most one decimal."""
    return f"{100 * value:.{min(1, decimals(100 * half_width))}f} %"


def is_ratio(unit: str) -> bool:
    """Whether an effect is a ratio, for which no change is 1 and a sign says nothing."""
    return "÷" in unit


def estimate(effect: Estimate, unit: str = "score") -> str:
    """An effect with its interval: `+8.1 points [6.0, 10.2]`.

    A unit that ends in `score` is shown in points. What else a long unit says stands in brackets.
    """
    points = unit.endswith(("score", "share"))
    what = re.sub(r"(, |^)(score|share)$", "", unit)
    scale, word = (100.0, " points") if points else (1.0, f" {clean(unit)}")
    if not points and (is_ratio(unit) or len(unit) > 12):
        word = ""
    numbers = [scale * x for x in (effect.value, effect.low, effect.high)]
    places = decimals((numbers[2] - numbers[1]) / 2)
    places = min(1, places) if points else places
    value, low, high = (signed(x, places, plus=i == 0 and not is_ratio(unit)) for i, x in enumerate(numbers))
    said = f" ({clean(what)})" if what and (points or not word) else ""
    return f"{value}{word} [{low}, {high}]{said}"


def probability(p: float) -> str:
    """`p = 0.03`, never more than two digits."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.01 else f"p = {p:.2f}"


SHAPES = {
    "dip-and-recover": "dips and is back at the base within the margin",
    "dip-and-overshoot": "dips and ends above the base",
    "partial-recovery": "dips and rises again, but ends below the base",
    "dip": "dips and rises again; whether it is back at the base is open",
    "fall-and-stay": "falls and stays down",
    "fall": "falls; whether it rises again is open",
    "rise": "rises",
    "rise-then-fall": "rises, then falls",
    "flat": "stays within the margin of the base",
    "inconclusive": "inconclusive",
}


def shape_text(shape: Shape) -> str:
    """A curve's shape with the numbers that carry it."""
    name = SHAPES[shape.label]
    if shape.depth is not None and shape.trough_step is not None and dipped(shape.label):
        depth = Estimate(-shape.depth.value, -shape.depth.high, -shape.depth.low)
        return f"{name}: {estimate(depth)} at step {shape.trough_step}, net {estimate(shape.net)}"
    return f"{name}: net {estimate(shape.net)}"


def domain_curves(analysis: Analysis, domain: str) -> list[Curve]:
    """The curves of one domain as a whole: generated where there are any, by likelihood otherwise."""
    found = [c for c in analysis.curves if c.level == "domain" and c.domain == domain and c.points]
    return [c for c in found if c.probe == "generate"] or found


def domains(analysis: Analysis) -> list[str]:
    """The four domains and any others of the study, in reading order."""
    return list(dict.fromkeys([*DOMAINS, *(c.domain for c in analysis.curves)]))


def tally(findings: Iterable[Finding]) -> dict[str, int]:
    """How many findings have each verdict; all four verdicts present."""
    counts = dict.fromkeys(VERDICTS, 0)
    for finding in findings:
        counts[finding.verdict] += 1
    return counts


def summary(analysis: Analysis) -> str:
    """One sentence on what the study shows, made from its findings."""
    counts = tally(analysis.findings)
    untested = counts["not tested"]
    tested = len(analysis.findings) - untested
    if not tested:
        return "No claim could be tested with these records."
    for_it, against, open_ = (counts[v] for v in VERDICTS[:3])
    parts = [f"{for_it or 'none'} of {tested} test{'s' * (tested > 1)} support{'s' * (for_it < 2)} its claim"]
    if for_it > 1:
        parts[0] = parts[0].replace("its claim", "their claim")
    parts[0] += _clearest(analysis, "supported", for_it)
    if against:
        parts.append(
            f"{against} contradict{'s' * (against == 1)} it{_clearest(analysis, 'contradicted', against)}"
        )
    if open_:
        parts.append(f"{open_} {'is' if open_ == 1 else 'are'} inconclusive")
    said = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    rest = f"; {untested} claim{'s' * (untested > 1)} could not be tested" if untested else ""
    return f"{said[0].upper()}{said[1:]}{rest}."


def by_claim(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Findings under the claim they test, both in order of appearance."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.claim, []).append(finding)
    return found


def common(lists: Sequence[Sequence[str]]) -> list[str]:
    """What stands in every one of several lists, in the order of the first; nothing for a single list."""
    return [x for x in lists[0] if all(x in other for other in lists)] if len(lists) > 1 else []


def _clearest(analysis: Analysis, verdict: str, count: int) -> str:
    """The finding whose effect is largest against its own interval, quoted."""
    best, lead = None, -1.0
    for finding in analysis.findings:
        effect = finding.effect
        if finding.verdict == verdict and effect is not None:
            null = 1.0 if is_ratio(finding.unit) else 0.0
            ratio = abs(effect.value - null) / max(effect.high - effect.low, 1e-9)
            if ratio > lead:
                best, lead = finding, ratio
    if best is None or best.effect is None:
        return ""
    claim = clean(best.claim).rstrip(". ")
    first = "most clearly " if count > 1 else ""
    where = f" in {clean(best.scope)}" if best.scope else ""
    return f" ({first}\u201c{claim}\u201d{where}: {estimate(best.effect, best.unit)})"
