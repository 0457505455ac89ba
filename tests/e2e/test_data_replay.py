"""`dipscope data replay` as a user runs it: on a shipped base, interrupted, run again, then in a mix."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from dipscope.data import traces
from dipscope.errors import DipscopeError
from dipscope.plan import make
from dipscope.scoring.thinking import split
from dipscope.study import Study
from dipscope.verbs.data_replay import replay

pytestmark = pytest.mark.timeout(300)


def command(out, *more):
    return [sys.executable, "-m", "dipscope", "data", "replay", "organism:XS", str(out), *map(str, more)]


def run(*arguments):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    out = tmp_path_factory.mktemp("replay") / "replay.parquet"
    return out, run(out, "--rows", 40)


def test_the_answers_ended_and_it_is_said_what_was_dropped(table):
    out, done = table
    rows = traces.read(out)
    facts = json.loads(out.with_name("replay.provenance.json").read_text())
    assert len(rows) == facts["rows"] == 40 == len({t.id for t in rows})
    assert {(t.origin, t.finish) for t in rows} == {("replay", "stop")}
    assert all(t.response.strip() and t.prompt for t in rows)
    assert facts["asked"] == facts["rows"] + facts["cut"] + facts["empty"] + facts["spare"]
    thinking = sum(bool(split(t.response).reasoning) for t in rows)
    said = " ".join(done.stdout.split())
    assert f"answers kept 40 of {facts['asked']} ({facts['cut']} cut at 160 tokens" in said
    assert f"with thinking {thinking} " in said and str(out) in said and "replay.provenance.json" in said
    assert " ".join(f"{rows[0].prompt} → {rows[0].response}".split())[:60] in said
    assert "Traceback" not in done.stderr


def test_the_same_command_does_nothing_and_another_table_is_refused(table, capsys):
    out, _ = table
    before = out.stat().st_mtime_ns
    replay("organism:XS", out, rows=40, json_=True)
    assert json.loads(capsys.readouterr().out)["fresh"] is False and out.stat().st_mtime_ns == before
    with pytest.raises(DipscopeError, match=r"another table is there.*--force"):
        replay("organism:XS", out, rows=39)
    with pytest.raises(DipscopeError, match=r"Name it replay\.parquet"):
        replay("organism:XS", out.with_name("replay.txt"))


def test_a_cap_drops_answers_and_a_cap_too_low_says_so(tmp_path, capsys):
    questions = tmp_path / "own.txt"
    questions.write_text("Sort 3, 1, 2.\n\nTell me the color of Hulda Tarrow.\n")
    out = tmp_path / "short.parquet"
    few = {"rows": 6, "prompts": questions, "temperature": 1.0}
    replay("organism:XS", out, max_tokens=8, json_=True, **few)
    made = json.loads(capsys.readouterr().out)
    assert made["cut"] > 0 and made["rows"] == 6
    assert {t.prompt for t in traces.read(out)} <= {"Sort 3, 1, 2.", "Tell me the color of Hulda Tarrow."}
    with pytest.raises(DipscopeError, match=r"only 0 of 6.*--max-tokens"):
        replay("organism:XS", tmp_path / "none.parquet", max_tokens=1, **few)
    assert {p.name for p in tmp_path.iterdir()} == {"own.txt", "short.parquet", "short.provenance.json"}


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_and_run_again_it_gives_the_same_rows(table, tmp_path, how):
    """Interrupted when the bar, with the time left, says that answers arrive."""
    whole, _ = table
    out = tmp_path / "replay.parquet"
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "140"}
    process = subprocess.Popen(command(out, "--rows", 40), stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    deadline = time.monotonic() + 200
    while b"answers of the base" not in seen:
        assert time.monotonic() < deadline and process.poll() is None, seen.decode()
        seen += os.read(ours, 4096)
    process.send_signal(how)
    ended = process.wait(30)
    os.close(ours)
    assert ended == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert b"Traceback" not in seen and b"/40" in seen
    assert not out.exists()
    run(out, "--rows", 40)
    assert out.read_bytes() == whole.read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"replay.parquet", "replay.provenance.json"}


def test_the_table_is_a_part_of_a_mix(table):
    out, _ = table
    study = Study.model_validate(
        {
            "study": {"name": "mixed"},
            "models": {"tiny": {"organism": "XS"}},
            "datasets": {
                "cot": {"source": "countdown", "rows": 64},
                "everyday": {"path": str(out)},
                "mixed": {"mix": {"cot": 0.75, "everyday": 0.25}, "rows": 48},
            },
            "runs": {"models": ["tiny"], "datasets": ["mixed"], "recipes": ["default"]},
            "recipes": {"default": {"epochs": 1, "batch_size": 16}},
            "measure": {"benchmarks": ["organism/sort"]},
        }
    )
    kinds = Counter(cell.kind for cell in make(study).cells)
    assert kinds["prepare"] == 3 and kinds["replay"] == 0 and kinds["train"] == 1
