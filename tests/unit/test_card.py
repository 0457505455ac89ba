"""The data card: a page that a person can read, that the Hub understands, and that data cannot break."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dipscope.data.checking import check, decontaminate
from dipscope.data.traces import Trace
from dipscope.report import datacard, datafigures, datatables
from dipscope.report.datatables import Grid

HOSTILE = (
    "a|b <script>alert(1)</script> [x](javascript:1) `c` *d* _e_ ~~f~~ $g$ \\ & \n| --- |\n# head\x1b[31m"
)
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def rows(count=30, think=True):
    made = []
    for i in range(count):
        thought = f"<think>\n{'step ' * (5 + 3 * i)}\n</think>\n" if think else ""
        made.append(
            Trace(f"t{i}", f"q{i}", f"Question {i}?", f"{thought}{'so ' * (1 + i % 7)}\\boxed{{{i}}}", str(i))
        )
    return made


def stats(**changes):
    return {"cot": check.describe(rows()), "no_cot": check.describe(rows(think=False)), **changes}


def provenance(**changes):
    found = decontaminate.search(
        rows(), {"some/bench": ["Is this a question that nobody has asked anyone before?"]}
    )
    return {
        "source": {
            "hub": "owner/pool",
            "revision": "abc",
            "files": [{"name": "p.parquet", "sha256": "0" * 64, "bytes": 9}],
        },
        "rules": {"keep": "random", "seed": 0, "variants": ["cot", "no_cot"], "rows": None},
        "counts": {"responses": 1200, "thinking closed": 800, "queries drawn": 30},
        "queries": {"responses": 40, "thinking closed": 36, "queries drawn": 30},
        "refused": {"no_cot": {"the thinking is never closed": 2}},
        "variants": {v: {"file": f"{v}.parquet", "rows": 30, "sha256": "1" * 64} for v in ("cot", "no_cot")},
        "verification": {"verdicts": {"correct": 600, "wrong": 150, "error": 50}, "without_gold": 0},
        "verifier": "verify/1",
        "decontamination": found.as_dict(),
        **changes,
    }


def card(folder, made=None, known=None):
    datacard.write(folder, stats() if made is None else made, provenance() if known is None else known)
    return (folder / "README.md").read_text()


def test_the_front_matter_is_what_the_hub_reads(tmp_path):
    text = card(tmp_path / "math")
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "unknown" and head["pretty_name"] == "math"
    assert head["size_categories"] == ["n<1K"] and "reasoning" in head["tags"]
    assert head["configs"] == [
        {"config_name": "cot", "data_files": "cot.parquet", "default": True},
        {"config_name": "no_cot", "data_files": "no_cot.parquet"},
    ]
    stated = yaml.safe_load(card(tmp_path / "b", known=provenance(license="mit")).split("---\n")[1])
    assert stated["license"] == "mit"


def test_the_hub_library_accepts_the_card(tmp_path):
    from huggingface_hub import DatasetCard

    card(tmp_path)
    data = DatasetCard.load(tmp_path / "README.md").data
    assert [c["config_name"] for c in data.configs] == ["cot", "no_cot"]


def test_the_card_says_where_it_comes_from_and_what_was_done(tmp_path):
    text = card(tmp_path)
    for said in ("owner/pool", "0" * 64, "| thinking closed | 800 | 66.7 % | 36 |", "80.0 % of the judged",
                 "| some/bench | 1 | 0 | 0 | 0 | 0 | 0 |", "verify/1", "the thinking is never closed",
                 '[datasets.no_cot]\npath = "no_cot.parquet"'):  # fmt: skip
        assert said in text
    links = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert links == ["figures/lengths.svg", "figures/stages.svg"]
    for link in links:
        assert (tmp_path / link).read_text().startswith("<svg")
        assert (tmp_path / link).with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_variants_that_agree_share_a_row(tmp_path):
    text = card(tmp_path, stats(again=check.describe(rows())))
    lines = [line for line in text.splitlines() if line.startswith(("| prompt", "| reasoning", "| answer"))]
    assert [line.split(" | ")[1] for line in lines] == ["all", "cot, again", "no_cot", "all"]


def test_a_card_of_little_is_whole(tmp_path):
    text = card(tmp_path / "x", {"only": check.describe(rows(1, think=False))}, {})
    assert "not searched for benchmark passages" in text and "## Stages" not in text
    empty = card(tmp_path / "y", {}, {"decontamination": None})
    assert empty.startswith("---\n") and not (tmp_path / "y" / "figures").exists()


def rendered(text):
    return MARKDOWN.render(text.split("---\n", 2)[2])


def test_text_from_data_stays_text(tmp_path):
    hostile = {
        HOSTILE: check.describe(
            [Trace("t", "q", HOSTILE, HOSTILE, origin=HOSTILE, verdict=HOSTILE, finish=HOSTILE)]
        )
    }
    known = provenance(
        name=HOSTILE, source={"hub": HOSTILE}, rules={HOSTILE: HOSTILE}, counts={HOSTILE: 3},
        queries={HOSTILE: 3}, refused={HOSTILE: {HOSTILE: 1}},
        variants={HOSTILE: {"file": HOSTILE, "rows": 1, "sha256": HOSTILE}}, verifier=HOSTILE,
    )  # fmt: skip
    text = card(tmp_path, hostile, known)
    html = rendered(text)
    assert "<script" not in html and 'javascript:1"' not in html and "\x1b" not in text
    assert len(re.findall("<h1>", html)) == 1 and "<del>" not in html
    yaml.safe_load(text.split("---\n")[1])
    for svg in (tmp_path / "figures").glob("*.svg"):
        assert "<script" not in svg.read_text()


@given(st.lists(st.text(max_size=30), min_size=2, max_size=4), st.text(max_size=30))
def test_a_cell_shows_its_text_and_no_more(cells, other):
    grid = Grid(tuple(f"h{i}" for i in range(len(cells))), (tuple(cells), (other,) * len(cells)))
    html = MARKDOWN.render(datacard.markdown(grid))
    body = re.findall(r"<td[^>]*>(.*?)</td>", html, re.DOTALL)
    assert len(body) == 2 * len(cells)
    import html as htmllib

    for cell, shown in zip([*cells, *(other,) * len(cells)], body, strict=True):
        assert "<" not in shown
        expected = " ".join(datacard.clean(cell).split())
        assert " ".join(htmllib.unescape(shown).split()) == " ".join(expected.split())


def test_the_same_inputs_give_the_same_bytes_in_any_process(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    known = provenance(name="same")
    made = stats()
    datacard.write(one, made, known)
    datacard.write(one / "again", made, known)  # a later drawing of the same process
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import test_card as t;"
        "t.datacard.write(Path(sys.argv[2]), t.stats(), t.provenance(name='same'))"
    )
    subprocess.run([sys.executable, "-c", script, str(Path(__file__).parent), str(two)], check=True)
    names = ["README.md", *(f"figures/{n}.{e}" for n in ("lengths", "stages") for e in ("svg", "png"))]
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes() == (one / "again" / name).read_bytes()


def values(spec, chart):
    layer = chart["layer"][0]
    return spec["datasets"][(layer.get("data") or chart["data"])["name"]]


def test_figures_draw_what_the_statistics_say():
    spec = datafigures.lengths(stats(same=check.describe(rows())))
    assert spec is not None
    titles = [[panel["title"]["text"] for panel in column["vconcat"]] for column in spec["hconcat"]]
    assert titles == [["Reasoning: cot, same"], ["Answer: cot, no_cot, same"]]
    bars = values(spec, spec["hconcat"][0]["vconcat"][0])
    assert sum(b["share"] for b in bars) == pytest.approx(1, abs=1e-3)
    assert datafigures.lengths({"none": check.describe([])}) is None
    stages = datafigures.stages([("all", 10), ("some", 4), ("none", 0)])
    assert [r["label"] for r in values(stages, stages)] == ["10", "4 (40.0 %)", "0 (0 %)"]


@pytest.mark.parametrize("spec", [datafigures.lengths(stats()), datafigures.stages([("all", 3), ("few", 1)])])
def test_figures_are_valid_vega_lite(spec):
    import altair as alt

    alt.Chart.from_dict(spec)


def test_shares_keep_none_and_all_apart():
    said = [datatables.share(n, 100_000) for n in (0, 1, 50_000, 99_999, 100_000)]
    assert said == ["0 %", "< 0.1 %", "50.0 %", "> 99.9 %", "100 %"]
    assert datatables.share(0, 0) == "–"
    assert [datatables.number(v) for v in (0, 1234567, 27.53, 1138.4, 12.0)] == [
        "0",
        "1,234,567",
        "27.5",
        "1,138",
        "12",
    ]
