"""`dipscope score`: stored responses judged again, and what is said of it."""

import gzip
import json

import polars as pl
import pytest
import stored_workspace as made

from dipscope import records
from dipscope.benchmarks.math import Math500
from dipscope.errors import DipscopeError
from dipscope.measure import tasks
from dipscope.scoring.verifiers import Verifiers
from dipscope.status import recall
from dipscope.verbs.score import score

GOLDS = ["42", r"\frac{3}{4}", "7", "-5"]
MATH, OWN = "paper/math500", "organism/arithmetic"


def say(task, step):
    """At the base right answers; later thinking that never ends, with the answer in it."""
    if task.benchmark.name != MATH:
        return f"Answer: {task.item.gold}"
    return f"{'<think>' if step else ''}It is $\\boxed{{{task.item.gold}}}$."


@pytest.fixture
def spec(tmp_path):
    path = str(made.math500(tmp_path, GOLDS))
    return made.study([MATH, OWN], items=4, samples=1, temperature=0.0, benchmark={MATH: {"path": path}})


def ask(root, *options):
    done = made.call(score, str(root), *options, "--json")
    assert done.exit_code == 0
    return json.loads(done.stdout.splitlines()[-1])


def contents(root):
    return {p: p.read_bytes() for p in (root / "records").rglob("*") if p.is_file()}


def test_todays_scorer_changes_nothing_and_writes_the_same_bytes_twice(tmp_path, spec):
    root = made.workspace(tmp_path / "w", spec, say).root
    before = contents(root)
    told = ask(root)
    assert {(r["benchmark"], r["name"]) for r in told["results"]} == {
        (name, at) for name in (MATH, OWN) for at in ("tiny @ 0", "tiny/cot/r/seed0 @ 2")
    }
    assert all(r["changed"] == 0 and r["records"] == 4 for r in told["results"])
    assert [r["score"] for r in told["results"]] == [r["stored_score"] for r in told["results"]]
    assert not told["notes"]
    written = (root / "rescored" / "today.parquet").read_bytes()
    assert ask(root)["records"] == str(root / "rescored" / "today.parquet")
    assert (root / "rescored" / "today.parquet").read_bytes() == written
    assert contents(root) == before


def test_an_older_scorers_verdicts_are_given_again(tmp_path, spec):
    root = made.workspace(
        tmp_path / "w", spec, say, verdict="wrong", score=0.0, scorer="old/1+strict", extracted="?"
    ).root
    told = ask(root, "--benchmarks", "paper/*")
    base, last = told["results"]
    assert (base["stored_score"], base["score"], base["changes"]) == (0.0, 1.0, {"wrong → correct": 4})
    assert (last["stored_score"], last["score"], last["changes"]) == (0.0, 0.0, {"wrong → missing": 4})
    assert base["stored_scorers"] == ["old/1+strict"] and base["scorer"] == Math500().scorer
    table = pl.read_parquet(told["records"])
    assert set(records.SCHEMA) < set(table.columns) and len(table) == 8
    assert set(table["stored_extracted"]) == {"?"} and set(table["scorer"]) == {Math500().scorer}


def test_another_protocol_reads_the_same_text_and_says_that_the_prompt_was_another(tmp_path, spec):
    root = made.workspace(tmp_path / "w", spec, say).root
    out = tmp_path / "paper.parquet"
    with Verifiers(1, rule="whole") as pool:
        told = ask(root, "--protocol", "paper", "--out", str(out))
        wanted = [
            judged.verdict
            for judged in pool.judge((rf"\boxed{{{g}}}", f"<think>It is $\\boxed{{{g}}}$.") for g in GOLDS)
        ]
    base, last = told["results"]
    assert base["changed"] == 0 and base["score"] == 1.0
    assert wanted == ["correct"] * 4
    assert (last["stored_score"], last["score"], last["changes"]) == (0.0, 1.0, {"missing → correct": 4})
    assert last["other_prompt"] == 4 and not pl.read_parquet(out)["same_prompt"].any()
    assert any("stored protocol's prompt" in note for note in told["notes"])
    assert any(OWN in note and "one protocol" in note for note in told["notes"])
    assert not (root / "rescored").exists()


def test_the_table_for_a_reader(tmp_path, spec):
    root = made.workspace(tmp_path / "w", spec, say).root
    done = made.call(score, str(root), "--protocol", "paper")
    line = next(at for at in done.stdout.splitlines() if at.startswith(MATH) and "0.000" in at)
    assert "1.000" in line and "4 of 4" in line and "strict → paper" in done.stdout
    assert "rescored/paper.parquet" in done.stdout


def test_thinking_that_the_prompt_opened_stays_unclosed(tmp_path, spec):
    root = made.workspace(
        tmp_path / "w",
        spec,
        lambda t, s: f"Answer: {t.item.gold}",
        closed=False,
        verdict="missing",
        score=0.0,
    ).root
    told = ask(root)
    assert {r["score"] for r in told["results"] if r["benchmark"] == MATH} == {0.0}
    table = pl.read_parquet(told["records"])
    assert not table["closed"].any() and set(table["answer"]) == {""}


def test_of_several_stored_verdicts_on_a_text_todays_counts(tmp_path, spec):
    root = made.workspace(tmp_path / "w", spec, say).root
    plan, _ = recall(root)
    for task in tasks([b.settings(spec.measure) for b in plan.benchmarks], made.ENGINE):
        old = made.row("c0", task, say(task, 0)) | {"verdict": "wrong", "score": 0.0, "scorer": "zzz/9"}
        made.keep(root, old, task)
        other = made.row("c0", task, "x") | {"prompt_hash": "of another prompt"}
        made.keep(root, other, task)
    told = ask(root)
    assert all(r["changed"] == 0 and r["records"] == 4 for r in told["results"])


def test_an_unfinished_study_and_failures_are_kept_apart(tmp_path, spec, monkeypatch):
    root = made.workspace(tmp_path / "w", spec, say, points={0: "c0"}).root
    failed = {"finish": "error", "verdict": "error", "score": None, "text": "", "answer": ""}

    def broken(self, item, response):
        raise LookupError("no rule")

    monkeypatch.setattr(Math500, "judge", broken)
    told = ask(root)
    math, own = told["results"]
    assert (math["score"], math["errors"], math["changes"]) == (None, 4, {"correct → error": 4})
    assert own["score"] == 1.0 and own["name"] == "tiny @ 0"
    assert "4 could not be judged: LookupError: no rule." in told["notes"]
    monkeypatch.undo()
    engine_failed = made.workspace(tmp_path / "v", spec, say, points={0: "c0"}, **failed).root
    assert {(r["score"], r["errors"], r["changed"]) for r in ask(engine_failed)["results"]} == {(None, 4, 0)}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--protocol", "lax"], "no protocol 'lax'"),
        (["--benchmarks", "gym/*"], "no benchmark of the study fits"),
        (
            ["--benchmarks", "organism/*", "--protocol", "paper"],
            "none of these benchmarks is a published one",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, spec, options, says):
    root = made.workspace(tmp_path / "w", spec, say, points={0: "c0"}).root
    with pytest.raises(DipscopeError, match=says) as caught:
        made.call(score, str(root), *options)
    assert "\n" not in str(caught.value)


def test_a_workspace_without_records(tmp_path, spec):
    root = made.workspace(tmp_path / "w", spec, say, points={0: "c0"}).root
    for path in (root / "records").rglob("*.parquet"):
        path.unlink()
    with pytest.raises(DipscopeError, match="no generated records"):
        made.call(score, str(root))


@pytest.mark.slow
def test_on_stored_outputs_only_what_was_cut_in_its_thinking_changes(shared, tmp_path):
    with gzip.open(shared / "long_cot/unireason_sft_math500.jsonl.gz", "rt") as file:
        said = {row["problem"]: row["response"] for row in map(json.loads, file)}
    path = str(shared / "math500/test.jsonl")
    spec = made.study([MATH], items=500, samples=1, protocol="paper", benchmark={MATH: {"path": path}})
    root = made.workspace(
        tmp_path / "w",
        spec,
        lambda task, _: f"<think>{said[task.item.prompt.rpartition(chr(10))[0]]}",
        points={0: "c0"},
    ).root
    (result,) = ask(root, "--protocol", "strict")["results"]
    assert (result["stored_score"], result["score"]) == (354 / 500, 332 / 500)
    assert result["changes"] == {"correct → missing": 22, "wrong → missing": 140}
