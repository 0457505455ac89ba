"""`dipscope score` and `dipscope audit` on a workspace that was really run."""

import json
import subprocess
import sys

import polars as pl
import stored_workspace as made

from dipscope import records
from dipscope.conclude import collect
from dipscope.status import recall
from dipscope.verbs.audit import audit
from dipscope.verbs.score import score

STUDY = """
[study]
name = "scored"

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
benchmarks = ["organism/arithmetic", "organism/countdown", "organism/facts"]
items = 12
max_tokens = 64
likelihood = true

[analysis]
bootstrap = 200
"""


def test_a_finished_study_is_rescored_to_what_it_says_and_audited(tmp_path):
    (tmp_path / "scored.toml").write_text(STUDY)
    root = tmp_path / "w"
    command = [
        sys.executable,
        "-m",
        "dipscope",
        "run",
        str(tmp_path / "scored.toml"),
        "--workspace",
        str(root),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    stored = collect(*recall(root)).filter(pl.col("probe") == "generate")

    told = json.loads(made.call(score, str(root), "--json").stdout.splitlines()[-1])
    assert len(told["results"]) == 6 and all(r["changed"] == 0 for r in told["results"])
    rescored = pl.read_parquet(told["records"])
    assert len(stored) == 72 and records.digest(rescored) == records.digest(stored)
    for r in told["results"]:
        mine = stored.filter(
            (pl.col("benchmark") == r["benchmark"]) & (pl.col("checkpoint") == r["checkpoint"])
        )
        assert r["score"] == r["stored_score"] == sum(mine["score"]) / len(mine)

    told = json.loads(made.call(audit, str(root), "--json").stdout.splitlines()[-1])
    judged = stored.filter(
        pl.col("verdict").is_in(["correct", "wrong"]) & (pl.col("benchmark") != "organism/facts")
    )
    assert told["all"]["verdicts"] == told["all"]["sampled"] == len(judged) > 0
    assert told["disagreements"] == [] and told["not_audited"] == ["organism/facts"]
    assert {p: p.read_bytes() for p in before} == before
