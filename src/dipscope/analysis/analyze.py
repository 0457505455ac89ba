"""Records in, analysis out: a pure function, and its JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, TypeVar

import polars as pl

from dipscope import records as record_store
from dipscope.analysis import comparisons, confounds, findings, lengths, safety
from dipscope.analysis.curves import Measured, measure, shaped
from dipscope.analysis.ledger import Context
from dipscope.analysis.panel import Group, Panel, groups, panels
from dipscope.analysis.results import Analysis, Curve, Estimate, Finding, Loss, Point, Shape
from dipscope.errors import DipscopeError
from dipscope.study import AnalysisSpec

_DIGITS = 9
_PROBES = ("generate", "likelihood")
T = TypeVar("T")

# The claims, in the order of the ledger.
RULES = (
    findings.in_domain_gain,
    findings.dip_and_recovery,
    confounds.termination,
    confounds.captured_format,
    lengths.length_findings,
    findings.early_understates,
    comparisons.data_variants,
    comparisons.replay_protects,
    safety.safety_tradeoff,
    safety.cost_of_reasoning,
    safety.over_refusal,
    comparisons.stronger_bases,
)


def analyze(records: pl.DataFrame, checkpoints: pl.DataFrame, spec: AnalysisSpec, study: str) -> Analysis:
    """Curves, shapes and findings of a study.

    Args:
        records: the columns of `records.SCHEMA`.
        checkpoints: one row per (run, step) with run, group, model, dataset, recipe, seed, step, tokens
            (supervised tokens so far), variant, replay, checkpoint (weights hash), and, where it is known,
            data: equal for datasets of the same queries. One hash may serve many runs; rows without records
            are ignored.
        spec: margins, alpha, bootstrap effort and seed.
        study: its name.

    Returns:
        The same analysis for the same input: the bootstrap is seeded, sums have a fixed order, and numbers
        are rounded to nine significant digits.

    Raises:
        DipscopeError: columns are missing.
    """
    lacking = [c for c in record_store.SCHEMA if c not in records.columns]
    if lacking:
        raise DipscopeError(f"columns are missing: {', '.join(lacking)}", "records", "Add them.")
    if "checkpoint" not in checkpoints.columns:
        raise DipscopeError("the column 'checkpoint' is missing", "checkpoint table", "Add it.")
    # The order of the hashes decides the order of sums, so it must not depend on the input's order.
    wanted = set(checkpoints["checkpoint"].drop_nulls())
    known = sorted(set(records["checkpoint"].unique()) & wanted)
    index = {name: i for i, name in enumerate(known)}
    ordered = records.sort(record_store.KEY)
    found = groups(checkpoints, index) if index else []
    tables = panels(ordered, index) if index else {}
    measured = _curves(found, tables, spec)
    ctx = Context(tuple(found), tables, tuple(measured), spec)
    ledger = [finding for rule in RULES for finding in rule(ctx)]
    return _rounded(
        Analysis(
            study=study,
            records=len(records),
            records_digest=record_store.digest(records),
            curves=tuple(m.curve for m in measured),
            findings=tuple(ledger),
            notes=_notes(ordered, found, measured),
            meta={
                "alpha": spec.alpha,
                "margin": spec.margin,
                "bootstrap": spec.bootstrap,
                "seed": spec.seed,
                "groups": {
                    g.name: {
                        "variant": g.variant,
                        "replay": g.replay,
                        "tokens": {str(s): g.tokens[s] for s in g.steps},
                    }
                    for g in found
                },
            },
        )
    )


def _curves(found: list[Group], tables: dict[tuple[str, str], Panel], spec: AnalysisSpec) -> list[Measured]:
    out: list[Measured] = []
    for probe in _PROBES:
        members = [p for (kind, _), p in tables.items() if kind == probe]
        domains = sorted({p.domain for p in members})
        by_level: dict[str, list[Measured | None]] = {"domain": [], "benchmark": []}
        for group in found:
            if not group.steps:
                continue
            for domain in domains:
                inside = [p for p in members if p.domain == domain]
                by_level["domain"].append(measure(group, inside, "domain", domain, spec))
            for panel in members:
                by_level["benchmark"].append(measure(group, [panel], "benchmark", panel.benchmark, spec))
        for level in by_level.values():
            out += shaped([m for m in level if m is not None], spec)
    return out


def _notes(ordered: pl.DataFrame, found: list[Group], measured: list[Measured]) -> tuple[str, ...]:
    notes = []
    for column, what in (
        ("prompt_hash", "prompts"),
        ("sampling_hash", "sampling settings"),
        ("scorer", "scorers"),
    ):
        mixed = (
            ordered.group_by("benchmark", "probe", "item", "sample")
            .agg(pl.col(column).n_unique().alias("n"))
            .filter(pl.col("n") > 1)["benchmark"]
            .unique()
            .sort()
        )
        if len(mixed):
            notes.append(
                f"different {what} were used for the same items of {', '.join(mixed)}: not comparable"
            )
    for group in found:
        steps = {s for run in group.runs.values() for s in run}
        if steps - set(group.steps):
            notes.append(
                f"{group.name}: some seeds lack some steps; curves use the {len(group.steps)} common ones"
            )
    for m in measured:
        left = [s for s in m.group.steps if s not in m.selection.steps]
        if left and m.curve.level == "benchmark" and m.curve.probe == "generate":
            notes.append(
                f"{m.group.name}, {m.curve.name}: steps {', '.join(map(str, left))} are left out, "
                "fewer than half of their items have a verdict"
            )
    return tuple(notes)


def _rounded(value: T) -> T:
    """The same structure with every float rounded to significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") + 0.0  # type: ignore[return-value]
    if isinstance(value, tuple):
        return tuple(_rounded(v) for v in value)  # type: ignore[return-value]
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _rounded(getattr(value, f.name)) for f in fields(value)})
    return value


def to_json(analysis: Analysis) -> str:
    """The analysis as JSON, byte-identical for equal analyses."""
    return json.dumps(asdict(analysis), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def from_json(text: str) -> Analysis:
    """Read what `to_json` wrote.

    Raises:
        DipscopeError: the text is not an analysis.
    """
    try:
        tree: dict[str, Any] = json.loads(text)
        tree["curves"] = tuple(_curve(c) for c in tree["curves"])
        tree["findings"] = tuple(
            Finding(**{**f, "effect": _estimate(f["effect"]), "caveats": tuple(f["caveats"])})
            for f in tree["findings"]
        )
        tree["notes"] = tuple(tree["notes"])
        return Analysis(**tree)
    except (ValueError, KeyError, TypeError) as error:
        raise DipscopeError(
            f"this is not an analysis of this version ({error})",
            "analysis",
            "Run `dipscope report WORKSPACE`.",
        ) from None


def _estimate(tree: dict[str, float] | None) -> Estimate | None:
    return None if tree is None else Estimate(**tree)


def _curve(tree: dict[str, Any]) -> Curve:
    shape = tree["shape"]
    if shape is not None:
        shape = {**shape, **{k: _estimate(shape[k]) for k in ("depth", "recovery", "net")}}
        span = shape["trough_range"]
        shape = Shape(**{**shape, "trough_range": None if span is None else tuple(span)})
    return Curve(
        **{
            **tree,
            "seeds": tuple(tree["seeds"]),
            "points": tuple(Point(**p) for p in tree["points"]),
            "losses": tuple(Loss(**p) for p in tree["losses"]),
            "shape": shape,
            "per_seed": {k: tuple(v) for k, v in tree["per_seed"].items()},
        }
    )
