"""`dipscope data sample` as a user runs it: a real model behind a real server, killed and started again."""

import json
import os
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
from openai_server import Fault, Server, organism_answer

from dipscope.data import countdown, traces
from dipscope.data.reading.sources import Source, open_table
from dipscope.data.traces import Trace, query_id

pytestmark = pytest.mark.timeout(240)

RUN = """
import sys, typer
from dipscope.errors import DipscopeError
from dipscope.verbs.data_sample import sample
app = typer.Typer()
app.command()(sample)
try:
    app()
except DipscopeError as error:
    print(f"dipscope: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


def command(source, out, teachers, *more):
    named = [part for teacher in teachers for part in ("--teacher", teacher)]
    small = ["--suffix", "", "--max-tokens", "60", "--workers", "1", "--json"]
    return [sys.executable, "-c", RUN, str(source), str(out), *named, *small, *map(str, more)]


def run(*arguments, code=0, env=None):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, env=env, timeout=200)
    assert done.returncode == code, done.stderr
    return (json.loads(done.stdout.splitlines()[-1]) if code == 0 else None), done.stderr


def rows(pool):
    shards = pool.glob("part-*.parquet")
    return {t.id: t for path in shards for t in traces.read(path)}


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Countdown problems in two rows each, as a table of questions."""
    import random

    path = tmp_path_factory.mktemp("questions") / "countdown.parquet"
    rng = random.Random(0)
    made = []
    for problem in countdown.draw(24, "train", 0):
        asked = countdown.prompt(problem, rng)
        made.append(Trace(problem.key, query_id(asked), asked, "", problem.gold))
    traces.write(path, made)
    return path


@pytest.fixture(scope="module")
def server():
    with Server() as running:
        yield running


@pytest.fixture(scope="module")
def whole(questions, server, tmp_path_factory):
    """The pool of an undisturbed run."""
    pool = tmp_path_factory.mktemp("whole") / "pool"
    return pool, *run(questions, pool, [server.url], "--samples", 4)


def test_a_pool_from_a_real_model(whole, questions):
    pool, result, said = whole
    found = rows(pool)
    assert result["present"] == result["wanted"] == len(found) == 96 and not result["errors"]
    assert {t.origin for t in found.values()} == {"server/organism-S"}
    golds = {t.query: t.gold for t in traces.read(questions)}
    for trace in found.values():
        assert trace.gold == golds[trace.query]
        problem = countdown.Problem.from_gold(trace.gold)
        expected = countdown.verify(problem, trace.response).verdict
        assert trace.verdict == expected, trace.response
    assert {"correct", "wrong"} <= {t.verdict for t in found.values()}
    assert result["verified"] == sum(t.verdict == "correct" for t in found.values()) / 96
    assert "Missing: 92 responses" in said and "measured on 4" in said
    assert sum(json.loads((pool / "provenance.json").read_text())["counts"]["finishes"].values()) == 96


def test_the_pool_is_a_source_of_traces(whole):
    pool, _, _ = whole
    table = open_table(Source.parse(str(pool)))
    read = sorted((t.query, t.response, t.verdict, t.finish, t.gold) for t in table.stream())
    assert read == sorted((t.query, t.response, t.verdict, t.finish, t.gold) for t in rows(pool).values())


def test_the_server_and_the_embedded_engine_write_the_same(whole, questions, tmp_path):
    pool, _, _ = whole
    result, _ = run(questions, tmp_path / "p", ["organism:S"], "--samples", 4)
    assert result["teacher"] == "organism:S"
    embedded = rows(tmp_path / "p")
    assert {k: t.response for k, t in embedded.items()} == {k: t.response for k, t in rows(pool).items()}


@pytest.mark.parametrize("teacher", ["server", pytest.param("organism", marks=pytest.mark.slow)])
def test_killed_in_the_middle_it_goes_on(teacher, questions, whole, tmp_path):
    pool = tmp_path / "pool"
    with Server(delay=0.05) as slow:
        named = [slow.url] if teacher == "server" else ["organism:S"]
        samples = 4 if teacher == "server" else 12
        for kill in range(2):
            running = subprocess.Popen(
                command(questions, pool, named, "--samples", samples),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            shards = len(list(pool.glob("part-*.parquet"))) if pool.exists() else 0
            until = time.monotonic() + 60
            while time.monotonic() < until and running.poll() is None:
                if pool.exists() and len(list(pool.glob("part-*.parquet"))) > shards:
                    time.sleep(0.2 * kill)  # into the middle of what comes next
                    break
                time.sleep(0.01)
            running.send_signal(signal.SIGKILL)
            running.wait()
        held = len(rows(pool))
        assert held > 0
        result, _ = run(questions, pool, named, "--samples", samples)
    found = rows(pool)
    assert result["present"] == len(found) == 24 * samples and result["new"] == len(found) - held
    expected = {k: t.response for k, t in rows(whole[0]).items()}
    assert {k: t.response for k, t in found.items() if k in expected} == expected
    tables = [pl.read_parquet(p) for p in pool.glob("part-*.parquet")]
    assert sum(t.height for t in tables) == len(found)  # nothing stands there twice


def test_an_interrupt_keeps_what_has_arrived(questions, tmp_path):
    pool = tmp_path / "pool"
    with Server(delay=0.1) as slow:
        running = subprocess.Popen(
            command(questions, pool, [slow.url], "--samples", 16), stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 60
        while len(slow.bodies) < 60 and time.monotonic() < until:
            time.sleep(0.01)
        answered = len(slow.bodies) - slow.in_flight
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=30) != 0
    assert answered - 5 <= len(rows(pool)) < 24 * 16  # some replies may still have been on their way
    counts = json.loads((pool / "provenance.json").read_text())["counts"]
    assert counts["responses"] == len(rows(pool))


def test_servers_that_misbehave_change_nothing(questions, whole, tmp_path):
    bad = [
        Fault(status=429, headers={"Retry-After": "0"}), Fault(status=500), Fault(drop=True),
        Fault(body=b'{"choices": []}'), Fault(body=b'{"choi', cut=50),
    ]  # fmt: skip

    def fault(number, body):
        return bad[number // 7 % len(bad)] if number % 7 == 3 else None

    with Server(fault=fault) as one, Server(fault=fault) as two:
        result, _ = run(questions, tmp_path / "p", [one.url, two.url], "--samples", 2)
    assert result["present"] == 48 and not result["errors"]
    expected = {k: t for k, t in rows(whole[0]).items() if k.endswith(("-0", "-1"))}
    assert rows(tmp_path / "p") == expected


def test_a_poisoned_question_is_left_out_and_asked_again(tmp_path):
    table = tmp_path / "questions.jsonl"
    asked = ["Make 12 from 3, 4.", "w " * 500_000, "Make 20 from 4, 5."]
    table.write_text("".join(json.dumps({"prompt": q, "answer": "x"}) + "\n" for q in asked))
    with Server() as server:
        result, said = run(table, tmp_path / "p", [server.url], "--samples", 1)
        assert result["present"] == 2 and "Not had: 1 (the server refused" in said
        first = len(server.bodies)
        result, _ = run(table, tmp_path / "p", [server.url], "--samples", 1)
        assert result["present"] == 2 and len(server.bodies) > first
    assert {t.prompt for t in rows(tmp_path / "p").values()} == {asked[0], asked[2]}


def test_estimates_come_first(questions, tmp_path, server):
    before = len(server.bodies)
    more = [
        "--samples",
        8,
        "--mean-tokens",
        40,
        "--rate",
        20,
        "--price-in",
        1,
        "--price-out",
        100,
        "--estimate",
    ]
    result, said = run(questions, tmp_path / "p", [server.url], *more)
    assert len(server.bodies) == before and result["present"] == 0
    assert result["estimate"]["tokens"] == 192 * 40 and result["estimate"]["seconds"] == 384
    assert "Time: about 6 min at 20 tokens a second." in said and "Cost: about 0.77" in said
    measured, _ = run(questions, tmp_path / "p", [server.url], "--samples", 8, "--estimate")
    assert len(server.bodies) == before + 4 and measured["present"] == 4


def test_the_cost_limit_stops_and_a_higher_one_goes_on(questions, tmp_path):
    prices = ["--samples", 4, "--price-in", 1000, "--price-out", 1000]
    with Server() as server:
        result, said = run(questions, tmp_path / "p", [server.url], *prices, "--max-cost", 2)
        counts = result["counts"]
        cost = (counts["tokens"] + counts["prompt_tokens"]) / 1000
        assert 0 < result["present"] < 96 and result["stopped"] == "max-cost"
        assert 2 - 0.3 < cost <= 2 and result["spent"] == pytest.approx(cost)
        assert "sampling will stop before it is reached" in said and "higher --max-cost" in said
        result, _ = run(questions, tmp_path / "p", [server.url], *prices, "--max-cost", 100)
        assert result["present"] == 96 == len(server.bodies)


def test_a_wrong_key_is_one_line_without_the_key(questions, tmp_path):
    env = {**os.environ, "TEACHER_KEY": "sk-wrong-and-secret"}
    with Server(key="sk-right") as server:
        _, said = run(questions, tmp_path / "p", [server.url], "--key-env", "TEACHER_KEY", code=2, env=env)
        assert said.count("\n") == 1 and "does not accept the key in TEACHER_KEY (401)" in said
        assert "secret" not in said
        right = {**env, "TEACHER_KEY": "sk-right"}
        more = ["--key-env", "TEACHER_KEY", "--samples", 1, "--rows", 2]
        run(questions, tmp_path / "p", [server.url], *more, env=right)
    assert b"sk-right" not in b"".join(p.read_bytes() for p in (tmp_path / "p").iterdir())


def test_min_p_is_refused_where_it_does_not_exist(questions, tmp_path):
    _, said = run(questions, tmp_path / "p", ["organism:S"], "--min-p", 0.1, code=2)
    assert "samples without min_p" in said


def test_the_organism_itself_answers():
    body = {
        "messages": [{"role": "user", "content": "Make 12 from 3, 4. Use each number once with + - *."}],
        "temperature": 0.0, "top_p": 1.0, "top_k": -1, "max_tokens": 60, "seed": 0,
    }  # fmt: skip
    said = organism_answer(body)
    assert said["usage"]["completion_tokens"] > 0 and said["finish_reason"] in ("stop", "length")
