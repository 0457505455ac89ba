"""The page in headless Chromium: charts are drawn, hostile text stays text, nothing overflows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dipscope.report import figures, page

sys.path.insert(0, str(Path(__file__).parents[1]))
import report_fixture as made

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)"
    ),
]
WIDTHS = (400, 1600)
# Headless Chromium has no windows narrower than 500 px, so the page stands in a frame of the width.
FRAME = """<!doctype html><title>waiting</title><body style="margin:0"><iframe id="f" src="{page}"
style="width:{width}px;height:3000px;border:0"></iframe><pre id="out"></pre>"""


class Marks(HTMLParser):
    """Counts the marks of each chart in a dumped document."""

    def __init__(self, dump: str) -> None:
        super().__init__()
        self.root: dict[str, str | None] = {}
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.marks: dict[str, int] = {}
        self.chart = ""
        self.feed(dump)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.handlers += [a for a in found if a.startswith("on")]
        if tag == "html":
            self.root = found
        if "data-figure" in found:
            self.chart = str(found["data-figure"])
            self.marks[self.chart] = 0
        if tag == "path" and self.chart and found.get("d"):
            self.marks[self.chart] += 1


def chromium(profile: Path, *options: str) -> str:
    """Standard output of one headless run."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--allow-file-access-from-files", f"--user-data-dir={profile}",
        "--virtual-time-budget=20000", *options,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode("utf-8", "replace")


def dump(html: Path, profile: Path, width: int = 1600) -> str:
    return chromium(profile, f"--window-size={width},1200", "--dump-dom", html.as_uri())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page on which findings, groups and samples all carry hostile text."""
    evil = "".join(made.HOSTILE)
    findings = (
        *made.findings(),
        replace(made.findings()[0], id=evil, claim=evil, caveats=(evil,), needs=evil),
    )
    curves = tuple(
        replace(c, group=c.group + made.HOSTILE[1], dataset=c.dataset + made.HOSTILE[1])
        for c in made.curves()
    )
    analysis = made.analysis(study="<b>study</b>" + made.HOSTILE[0], findings=findings, curves=curves)
    out = tmp_path_factory.mktemp("page") / "index.html"
    drawn = figures.draw(analysis)
    table = made.records()
    asked = {
        (b, i): f"What is asked in {i}? {evil}" for b, i in table.select("benchmark", "item").unique().rows()
    }
    out.write_text(page.render(analysis, table, made.checkpoints(), drawn, asked), encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def dumped(written: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return dump(written, tmp_path_factory.mktemp("profile"))


def test_every_visible_chart_is_drawn(dumped: str) -> None:
    found = Marks(dumped)
    folded = {name for name in found.marks if name.startswith("benchmark-")}
    assert len(found.marks) - len(folded) == 18
    for name in set(found.marks) - folded:
        assert found.marks[name] >= 6, name
    assert found.root.get("data-drawn") == "18"


def test_no_script_fails(dumped: str) -> None:
    assert "data-error" not in Marks(dumped).root
    assert 'class="failed"' not in dumped.split('<script type="application/json"')[0]


def test_hostile_text_stays_text(dumped: str) -> None:
    found = Marks(dumped)
    assert found.tags.count("script") == 4
    assert not {"img", "iframe", "b-study"} & set(found.tags)
    assert not found.handlers
    title = re.search(r"<title>(.*?)</title>", dumped, re.S)
    assert title is not None and "owned" not in title[1] and "&lt;b&gt;study" in title[1]
    body = dumped.split('<script type="application/json"')[0]
    assert "{{ 7 * 7 }}" in body
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in body
    assert 'class="response' in body
    question = re.search(r'<pre class="question"[^>]*>(.*?)</pre>', body, re.S)
    assert question is not None and question[1].startswith("What is asked in item-000? ")


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(written: Path, tmp_path: Path, width: int) -> None:
    frame = tmp_path / "frame.html"
    script = """<script>setTimeout(() => {
      const d = document.getElementById('f').contentDocument.documentElement;
      const out = [d.dataset.drawn, d.scrollWidth, d.clientWidth];
      document.getElementById('out').textContent = out.join(' ');
    }, 15000)</script>"""
    frame.write_text(FRAME.format(page=written.as_uri(), width=width) + script)
    text = dump(frame, tmp_path / "profile", max(width, 500) + 40)
    result = re.search(r'<pre id="out">(\d+) (\d+) (\d+)</pre>', text)
    assert result is not None, text[-300:]
    drawn, content, window = map(int, result.groups())
    assert drawn == 18
    assert content <= window <= width


def test_the_controls_work(written: Path, tmp_path: Path) -> None:
    # The page's policy admits no foreign script, so the copy that is driven has none.
    html = re.sub(
        r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", written.read_text(encoding="utf-8")
    )
    drive = """<script>setTimeout(async () => {
      const wait = () => new Promise((next) => setTimeout(next, 1500));
      const line = () => document.querySelector('#fig-score-in_domain .mark-line path').getAttribute('d');
      const out = {before: line()};
      document.querySelector('[data-mode=completed]').click(); await wait();
      out.after = line();
      document.querySelector('.filters [data-verdict=contradicted]').click();
      out.shown = document.querySelectorAll('.finding:not([hidden])').length;
      document.querySelector('#benchmarks details').open = true; await wait(); await wait();
      out.benchmarks = document.querySelectorAll('#benchmarks svg').length;
      const pick = document.getElementById('pick-item');
      pick.value = 1; pick.dispatchEvent(new Event('change'));
      out.cards = document.querySelectorAll('.response').length;
      out.text = document.querySelector('.response pre').textContent;
      const p = document.createElement('pre'); p.id = 'result';
      p.textContent = [out.before !== out.after, out.shown, out.benchmarks, out.cards, out.text].join('|');
      document.body.append(p);
    }, 8000)</script>"""
    driven = tmp_path / "driven.html"
    driven.write_text(drive.join(html.rsplit("</body>", 1)), encoding="utf-8")
    result = re.search(r'<pre id="result">(.*?)</pre>', dump(driven, tmp_path / "profile"), re.S)
    assert result is not None
    changed, shown, benchmarks, cards, text = result[1].split("|", 4)
    assert changed == "true"
    assert shown == "1"
    assert benchmarks == "8"
    assert cards == "8"
    assert text.startswith("The answer is 2.")


def test_a_screenshot_can_be_taken(written: Path, tmp_path: Path) -> None:
    shot = tmp_path / "page.png"
    chromium(tmp_path / "profile", "--window-size=1600,1200", f"--screenshot={shot}", written.as_uri())
    assert shot.read_bytes().startswith(b"\x89PNG") and shot.stat().st_size > 50_000
