"""`dipscope data countdown`: the table, its provenance, and what it refuses."""

import hashlib
import json

import pytest
import typer
from typer.testing import CliRunner

from dipscope.data import countdown, traces
from dipscope.data.countdown import Options, Problem
from dipscope.data.reading import sources
from dipscope.errors import DipscopeError
from dipscope.verbs.data_countdown import countdown as verb

app = typer.Typer()
app.command()(verb)


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_table_and_provenance_agree_and_are_the_same_bytes_again(tmp_path):
    options = [
        "--numbers",
        "3-4",
        "--backtracking",
        2,
        "--verification",
        0.5,
        "--subgoals",
        0.5,
        "--rows",
        80,
    ]
    said = json.loads(run(tmp_path / "a.parquet", *options, "--json").splitlines()[-1])
    rows = traces.read(tmp_path / "a.parquet")
    written = json.loads((tmp_path / "a.provenance.json").read_text())
    assert written.items() <= said.items()
    assert written["sha256"] == hashlib.sha256((tmp_path / "a.parquet").read_bytes()).hexdigest()
    assert written["rows"] == len(rows) == 80
    assert written["counts"]["verdicts"] == {"correct": 80}
    sizes = [len(Problem.from_gold(t.gold).numbers) for t in rows]
    assert written["counts"]["numbers"] == {"3": sizes.count(3), "4": sizes.count(4)}
    assert written["rates"] == countdown.rates(t.response for t in rows)
    assert countdown.traces(80, 0, Options.of(written["options"])) == rows
    run(tmp_path / "b.parquet", *options)
    for suffix in ("parquet", "provenance.json"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_another_table_is_kept_and_the_same_is_not_made_again(tmp_path):
    out = tmp_path / "a.parquet"
    run(out, "--rows", 20)
    before = out.stat().st_mtime_ns, out.read_bytes()
    assert "20 train" in run(out, "--rows", 20)
    for other in (["--rows", 21], ["--rows", 20, "--seed", 1], ["--rows", 20, "--no-traces"]):
        with pytest.raises(DipscopeError, match="another table is there"):
            run(out, *other)
    assert (out.stat().st_mtime_ns, out.read_bytes()) == before
    run(out, "--rows", 21, "--force")
    assert len(traces.read(out)) == 21
    out.write_bytes(b"damaged")
    with pytest.raises(DipscopeError, match="another table is there"):
        run(out, "--rows", 21)
    (tmp_path / "a.provenance.json").write_text("[]")
    with pytest.raises(DipscopeError, match="another table is there"):
        run(out, "--rows", 21)


def test_questions_without_traces_are_a_source_for_another_teacher(tmp_path):
    out = tmp_path / "q.parquet"
    shown = run(out, "--rows", 30, "--no-traces", "--prompt-style", "list", "--split", "test")
    assert "solved" not in shown and "30 test" in shown
    table = sources.open_table(sources.Source.parse(str(out)), need_response=False)
    asked = list(table.stream())
    assert len({t.query for t in asked}) == 30
    for trace in asked:
        problem = Problem.from_gold(trace.gold)
        assert countdown.read_prompt(trace.prompt) == problem
        assert countdown.split_of(problem.key) == "test"
    assert json.loads((tmp_path / "q.provenance.json").read_text())["rates"] is None


def test_the_printed_table_says_what_came_out(tmp_path):
    shown = run(tmp_path / "a.parquet", "--rows", 25, "--numbers", 3, "--operators", "+-*", "--largest", 12)
    for line in (
        "25 train (25 with 3 numbers)",
        "100.0%",
        "failed branches",
        "checks a branch",
        "goals named",
    ):
        assert line in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.csv"], "a.parquet"),
        (["a.parquet", "--numbers", "7"], "2-6"),
        (["a.parquet", "--target", "ten"], "not an option"),
        (["a.parquet", "--numbers", "2", "--largest", "5", "--rows", "900"], "train problems, not 900"),
    ],
)
def test_what_cannot_be_made_is_said_and_nothing_is_written(tmp_path, arguments, said):
    with pytest.raises(DipscopeError, match=said) as error:
        run(tmp_path / arguments[0], *arguments[1:])
    assert error.value.exit_code == 2
    assert not list(tmp_path.iterdir())
