from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import get_args

import altair as alt
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dipscope.analysis.results import Estimate, Finding, dipped
from dipscope.report import figures, look, page, samples, terminal, words
from dipscope.report.curves import row
from dipscope.stats.shape import Label

sys.path.insert(0, str(Path(__file__).parents[1]))
import report_fixture as made


class Reader(HTMLParser):
    """What a parser makes of the page: elements, attributes, and the text of each script."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += data
        self.text.append(data)


@pytest.fixture(scope="module")
def drawn() -> list[figures.Figure]:
    return figures.draw(made.analysis())


@pytest.fixture(scope="module")
def html(drawn: list[figures.Figure]) -> str:
    return page.render(made.analysis(), made.records(), made.checkpoints(), drawn)


def one_domain() -> list[figures.Figure]:
    curves = [c for c in made.curves() if c.name == "in_domain"]
    return figures.draw(made.analysis(curves=tuple(curves)))


def test_every_figure_is_a_valid_vega_lite_specification(drawn: list[figures.Figure]) -> None:
    for figure in drawn:
        alt.Chart.from_dict({k: v for k, v in figure.spec.items() if k != "usermeta"})


def test_there_is_a_figure_for_everything_that_was_measured(drawn: list[figures.Figure]) -> None:
    names = {f.name for f in drawn}
    for domain in made.DOMAINS:
        assert {f"{kind}-{domain}" for kind in ("score", "length", "truncated", "decomposition")} <= names
    assert {"hero", "tradeoff", "probes-choice-mmlu", "benchmark-choice-mmlu-likelihood"} <= names
    assert len(names) == len(drawn)


def test_a_group_has_one_colour_in_all_figures(drawn: list[figures.Figure]) -> None:
    def scales(value: object) -> list[tuple[str, ...]]:
        if isinstance(value, dict):
            own = (
                [tuple(value["scale"]["range"])]
                if value.get("field") == "group" and "range" in value.get("scale", {})
                else []
            )
            return own + [s for v in value.values() for s in scales(v)]
        return [s for v in value for s in scales(v)] if isinstance(value, list) else []

    assert {s for f in drawn for s in scales(f.spec)} == {look.PALETTE[:3]}


def test_the_figures_hold_the_numbers_of_the_analysis(drawn: list[figures.Figure]) -> None:
    figure = next(f for f in drawn if f.name == "score-safety")
    rows = next(t for t in figure.spec["datasets"].values() if "score" in t[0])
    curve = next(c for c in made.curves() if c.name == "safety" and c.dataset == "cot")
    shown = {r["step"]: (r["low"], r["score"], r["high"]) for r in rows if r["group"] == "cot"}
    assert shown == {p.step: tuple(round(x, 5) for x in (p.low, p.score, p.high)) for p in curve.points}
    assert "base" in json.dumps(figure.spec)


def test_names_at_the_ends_of_lines_do_not_overlap(drawn: list[figures.Figure]) -> None:
    figure = next(f for f in drawn if f.name == "score-safety")
    rows = [r for t in figure.spec["datasets"].values() for r in t if r.get("last")]
    at = sorted(r["label_y"] for r in rows)
    low, high = min(r["low"] for r in rows), max(r["high"] for r in rows)
    assert min(b - a for a, b in pairwise(at)) >= 12 * (high - low) / 210 * 0.9


def test_a_domain_without_data_is_named_and_not_drawn() -> None:
    figures_ = one_domain()
    assert {f.domain for f in figures_} <= {"in_domain", ""}
    curves = tuple(c for c in made.curves() if c.name == "in_domain")
    text = page.render(made.analysis(curves=curves), made.records(), made.checkpoints(), figures_)
    assert text.count("No benchmark of this study measures this domain") == 3
    assert "this study has no such pair" in text


def test_an_empty_study_still_has_a_page() -> None:
    empty = made.analysis(curves=(), findings=(), records=0)
    text = page.render(empty, made.records().clear(), made.checkpoints().clear(), figures.draw(empty))
    assert "No claim could be tested" in text
    assert "There are no generated responses to show" in text


def test_rendering_again_gives_the_same_bytes(tmp_path: Path) -> None:
    curves = tuple(c for c in made.curves() if c.name == "in_domain")
    small = made.analysis(curves=curves)
    for folder in ("a", "b"):
        assert page.write(small, made.records(4), made.checkpoints(), tmp_path / folder).name == "index.html"
    names = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert {n.suffix for n in names} == {".html", ".svg", ".png", ".json"}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_shuffled_records_give_the_same_samples() -> None:
    table = made.records()
    shuffled = table.sample(fraction=1.0, shuffle=True, seed=3)
    assert samples.choose(table, made.checkpoints(), {}) == samples.choose(shuffled, made.checkpoints(), {})


def test_the_page_needs_no_network(html: str) -> None:
    policy = next(a["content"] for t, a in Reader(html).tags if t == "meta" and "http-equiv" in a)
    assert policy is not None and policy.startswith("default-src 'none'")
    assert "unsafe-inline" not in policy.split("script-src")[1]
    for tag, attributes in Reader(html).tags:
        assert tag not in ("link", "img", "iframe")
        for name in ("src", "href"):
            assert not (attributes.get(name) or "").startswith(("http", "//", "javascript")), (
                tag,
                attributes,
            )


def test_hostile_text_stays_text(drawn: list[figures.Figure]) -> None:
    evil = "".join(made.HOSTILE) + "\ud800"
    claim = Finding(
        evil, evil, evil, evil, "supported", Estimate(0.1, 0.0, 0.2), evil, 0.1, 9, 1, (evil,), evil, evil
    )
    curves = tuple(
        replace(c, group=evil + c.group, dataset=evil + c.dataset)
        for c in made.curves()
        if c.level == "domain"
    )
    bad = made.analysis(study=evil, findings=(claim,), notes=(evil,), curves=curves)
    text = page.render(bad, made.records(), made.checkpoints(), figures.draw(bad))
    text.encode()
    reader = Reader(text)
    clean = Reader(page.render(made.analysis(), made.records(), made.checkpoints(), drawn))
    assert len(reader.scripts) == len(clean.scripts) == 4
    assert not [t for t, _ in reader.tags if t in ("img", "iframe", "object", "embed")]
    assert not [a for _, attributes in reader.tags for a in attributes if a.startswith("on")]
    assert "alert(1)" in "".join(reader.text)
    assert "{{ 7 * 7 }}" in text
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\u202e]", text.split("<script>")[0])


@given(st.recursive(st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=8))
def test_embedded_json_is_inert_and_exact(value: object) -> None:
    text = samples.embed(value)
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == value


@given(st.text(alphabet=st.characters(codec=None)))
def test_cleaned_text_can_be_encoded_and_holds_no_controls(text: str) -> None:
    out = words.clean(text)
    out.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", out)
    assert words.clean(out) == out


@given(st.lists(st.text(max_size=120), max_size=12))
def test_file_stems_are_safe_and_distinct(names: list[str]) -> None:
    found = figures.stems(names)
    assert len(set(found)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_-]{1,90}", s) for s in found)


def test_samples_take_the_first_items_then_the_unstable_ones() -> None:
    table = made.records(12, hostile=False)
    steady = (pl.col("benchmark") == "math/500") & (pl.col("item") != "item-007")
    flipping = (
        (pl.col("benchmark") == "math/500")
        & (pl.col("item") == "item-007")
        & pl.col("checkpoint").str.ends_with("20")
    )
    table = table.with_columns(
        verdict=pl.when(steady).then(pl.lit("wrong")).when(flipping).then(pl.lit("correct"))
        .when(pl.col("benchmark") == "math/500").then(pl.lit("wrong")).otherwise(pl.col("verdict"))
    )  # fmt: skip
    chosen = samples.choose(table, made.checkpoints(), {})
    math = next(b for b in chosen["benchmarks"] if b["name"] == "math/500")
    assert [i["item"] for i in math["items"][:4]] == ["item-000", "item-001", "item-002", "item-007"]
    assert len(math["items"]) == 8


@pytest.mark.parametrize("budget", [2_000_000, 200_000, 20_000])
def test_samples_keep_to_their_budget(budget: int) -> None:
    table = made.records(10).with_columns(answer=pl.lit("<&>" * 20_000))
    chosen = samples.choose(table, made.checkpoints(), {}, budget)
    assert len(samples.embed(chosen)) <= max(budget, 3000)
    assert len(chosen["runs"]) == 6


def test_a_cut_response_says_how_much_is_missing() -> None:
    table = made.records(3, hostile=False).with_columns(answer=pl.lit("a" * 50_000))
    chosen = samples.choose(table, made.checkpoints(), {})
    answer = next(iter(chosen["benchmarks"][0]["items"][0]["responses"].values()))["answer"]
    kept, cut = answer.count("a") - "characters".count("a"), int(re.search(r"… (\d+) char", answer)[1])  # type: ignore[index]
    assert kept + cut - 1 == 50_000 - 1


@pytest.mark.parametrize("seeds, visible", [((0,), True), ((0, 1), False)])
def test_one_seed_is_said_aloud(seeds: tuple[int, ...], visible: bool) -> None:
    analysis = made.analysis(curves=made.curves(seeds), findings=())
    text = page.render(analysis, made.records(2), made.checkpoints(seeds), [])
    assert ("has one training seed" in text) is visible
    out = io.StringIO()
    terminal.show(analysis, Console(file=out, width=100))
    assert ("One training seed" in out.getvalue()) is visible


@pytest.mark.parametrize(
    "effect, unit, text",
    [
        (Estimate(0.081, 0.06, 0.102), "score", "+8.1 points [6.0, 10.2]"),
        (Estimate(-0.117, -0.151, -0.083), "score", "\u221212 points [\u221215, \u22128]"),
        (Estimate(0.0, -0.01, 0.01), "score", "0.0 points [\u22121.0, 1.0]"),
        (Estimate(212.0, -40.0, 464.0), "tokens", "+212 tokens [\u221240, 464]"),
        (Estimate(1.42, 1.31, 1.53), "length ÷ base", "1.42 [1.31, 1.53] (length ÷ base)"),
        (Estimate(0.42, 0.3, 0.51), "rank correlation", "+0.42 [0.30, 0.51] (rank correlation)"),
        (
            Estimate(0.05, 0.03, 0.07),
            "depth of the trough, score",
            "+5.0 points [3.0, 7.0] (depth of the trough)",
        ),
    ],
)
def test_effects_have_no_more_digits_than_their_interval(effect: Estimate, unit: str, text: str) -> None:
    assert words.estimate(effect, unit) == text


def test_the_summary_is_made_from_the_findings() -> None:
    text = words.summary(made.analysis())
    assert text.startswith("2 of 4 tests support their claim")
    assert "CoT traces transfer further" in text
    assert "1 contradicts it" in text and "1 is inconclusive" in text
    assert text.endswith("; 1 claim could not be tested.")
    assert words.summary(made.analysis(findings=made.findings()[2:3])).startswith("None of 1 test supports")
    only = made.analysis(findings=made.findings()[4:])
    assert words.summary(only) == "No claim could be tested with these records."


@pytest.mark.parametrize("label", get_args(Label))
def test_every_shape_is_said_in_words_and_only_what_was_shown(label: Label) -> None:
    shape = next(c.shape for c in made.curves() if c.shape and c.shape.label.startswith("dip"))
    text = words.shape_text(replace(shape, label=label))
    assert text.startswith(words.SHAPES[label]) and "[" in text
    assert ("at step" in text) is dipped(label)
    assert ("back at the base" in text) is (label in ("dip-and-recover", "dip"))
    assert ("open" in text) is (label in ("dip", "fall"))


@pytest.mark.parametrize("label", ["dip-and-recover", "partial-recovery", "dip", "fall", "flat"])
def test_a_ring_marks_every_trough_whose_dip_passed_its_test(label: Label) -> None:
    curve = next(c for c in made.curves() if c.shape and c.shape.label.startswith("dip"))
    assert curve.shape is not None
    named = replace(curve, shape=replace(curve.shape, label=label))
    look_ = look.Look(made.analysis())
    rings = [p.step for p in named.points if row(named, p, look_)["trough"]]
    assert rings == ([curve.shape.trough_step] if dipped(label) else [])


def test_harmless_requests_are_a_domain_of_their_own() -> None:
    extra = tuple(
        replace(c, name="over_refusal", domain="over_refusal")
        for c in made.curves()
        if (c.level, c.name) == ("domain", "safety")
    )
    analysis = made.analysis(curves=(*made.curves(), *extra))
    shown = figures.draw(analysis)
    text = page.render(analysis, made.records(1), made.checkpoints(), shown)
    assert "Harmless requests answered" in text and "score-over_refusal" in {f.name for f in shown}
    assert "Harmless requests answered" not in page.render(
        made.analysis(), made.records(1), made.checkpoints(), []
    )


def test_findings_lead_to_their_figures(drawn: list[figures.Figure], html: str) -> None:
    ids = {a["id"] for _, a in Reader(html).tags if a.get("id")}
    for reference in (
        "curves:in_domain",
        "curves:math/500",
        "decomposition:tiny/cot/default",
        "lengths",
        "tradeoff",
    ):
        assert page._link(reference, drawn) in ids, reference
    assert page._link("", drawn) == page._link("nowhere:else", drawn) == ""


@pytest.mark.parametrize("width", [30, 40, 64, 80, 100, 160])
def test_the_terminal_view_fits_and_says_everything(width: int) -> None:
    out = io.StringIO()
    evil = replace(made.findings()[0], claim="\x1b[31m[red]not markup[/red]")
    terminal.show(made.analysis(findings=(*made.findings(), evil)), Console(file=out, width=width))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(re.sub(r"[\s]+", " ", text).split())
    for word in ("supported", "contradicted", "inconclusive", "not tested", "answer_only", "72.4 %"):
        assert word in flat
    assert "\x1b" not in text
    assert "[red]not" in flat


def test_a_claim_with_many_scopes_is_said_once(drawn: list[figures.Figure]) -> None:
    first = replace(made.findings()[0], caveats=("shared caveat", "own caveat"))
    second = replace(first, scope="another group", verdict="inconclusive", caveats=("shared caveat",))
    analysis = made.analysis(findings=(first, second))
    out = io.StringIO()
    terminal.show(analysis, Console(file=out, width=110))
    ledger = out.getvalue().split("Findings")[1]
    ledgers = [
        ledger,
        page.render(analysis, made.records(1), made.checkpoints(), drawn).split('id="ledger"')[1],
    ]
    for text in ledgers:
        assert text.count(first.claim) == text.count("shared caveat") == text.count("own caveat") == 1
        assert first.scope in text and "another group" in text


def test_sparklines_share_the_scale_they_are_given() -> None:
    assert terminal.spark([0.0, 0.5, 1.0], 0.0, 1.0) == "▁▅█"
    assert terminal.spark([0.4, 0.6], 0.0, 1.0) == "▄▅"
    assert len(set(terminal.spark([0.3] * 5, 0.3, 0.3))) == 1
