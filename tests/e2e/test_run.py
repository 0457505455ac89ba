"""The whole chain through the command line, on a study small enough to be run, killed and damaged often."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STUDY = """
[study]
name = "mini"

[models.tiny]
organism = "XS"

[datasets.cot]
variant = "cot"
rows = 64
replay = 0.25

[datasets.no_cot]
variant = "no_cot"
rows = 64

[recipes.short]
lr = 1e-3
epochs = 2
batch_size = 16
precision = "fp32"
checkpoints = [2, 5, 8]
resume_every = 2

[runs]
models = ["tiny"]
datasets = ["cot", "no_cot"]
recipes = ["short"]

[measure]
benchmarks = ["organism/countdown", "organism/sort", "organism/refusal"]
items = 12
max_tokens = 48
temperature = 0.7
samples = 2

[analysis]
bootstrap = 200
"""


def start(study, workspace, *more, limit=None):
    def confine():
        os.setsid()
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [
        sys.executable,
        "-m",
        "dipscope",
        "run",
        str(study),
        "--workspace",
        str(workspace),
        "--json",
        *more,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=confine
    )


def run(study, workspace, *more, limit=None):
    """Exit code, the JSON object on the last line of standard output, standard error."""
    out, err = (process := start(study, workspace, *more, limit=limit)).communicate()
    return process.returncode, json.loads(out.splitlines()[-1]) if out else None, err


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    study = folder / "mini.toml"
    study.write_text(STUDY)
    code, result, err = run(study, folder / "w")
    assert code == 0, err
    return study, folder / "w", result


def same(result, workspace, undisturbed):
    """Byte-identical analysis and the same records as the run nobody disturbed."""
    _, reference, expected = undisturbed
    assert result["records_digest"] == expected["records_digest"]
    assert (workspace / "analysis.json").read_bytes() == (reference / "analysis.json").read_bytes()


def copy(workspace, tmp_path):
    import shutil

    return Path(shutil.copytree(workspace, tmp_path / "copy"))


def test_the_study_ends_in_records_findings_and_a_page(undisturbed):
    _, workspace, result = undisturbed
    # step 0 once and three steps of two runs, 12 items × 2 samples × 3 benchmarks, plus likelihoods
    assert result["records"] >= 7 * 72
    assert len(result["findings"]) > 5
    assert (workspace / "report" / "index.html").stat().st_size > 10_000


def test_running_again_does_nothing_and_says_so(undisturbed):
    study, workspace, result = undisturbed
    before = {p: p.stat().st_mtime_ns for p in workspace.rglob("*") if p.is_file() and p.suffix != ".jsonl"}
    code, again, err = run(study, workspace)
    assert code == 0
    assert "Nothing to do" in err
    assert again == result
    after = {p: p.stat().st_mtime_ns for p in before}
    changed = {p.name for p in before if before[p] != after[p]}
    assert changed <= {"study.json"}


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_killing_it_anywhere_changes_nothing(undisturbed, tmp_path, kills):
    study, _, _ = undisturbed
    workspace = tmp_path / "w"
    moments = random.Random(kills)
    for _ in range(kills):
        process = start(study, workspace)
        time.sleep(moments.uniform(1.0, 14.0))
        process.send_signal(signal.SIGKILL)  # the workers must notice by themselves
        process.communicate()
    code, result, err = run(study, workspace)
    assert code == 0, err
    same(result, workspace, undisturbed)


def test_a_damaged_shard_is_set_aside_and_only_its_records_are_made_again(undisturbed, tmp_path):
    study, workspace, _ = undisturbed
    workspace = copy(workspace, tmp_path)
    shards = sorted((workspace / "records").rglob("part-*.parquet"))
    victim = shards[len(shards) // 2]
    victim.write_bytes(victim.read_bytes()[:-20])
    others = {p: p.stat().st_mtime_ns for p in shards if p != victim}
    code, result, err = run(study, workspace)
    assert code == 0, err
    assert victim.name in err
    same(result, workspace, undisturbed)
    assert {p: p.stat().st_mtime_ns for p in others} == others


def test_a_damaged_checkpoint_is_trained_anew(undisturbed, tmp_path):
    study, workspace, _ = undisturbed
    workspace = copy(workspace, tmp_path)
    weights = sorted((workspace / "runs").glob("*/step-000005/model.safetensors"))[0]
    data = bytearray(weights.read_bytes())
    data[-100] ^= 255
    weights.write_bytes(data)
    for marker in (workspace / "cells").glob("measure-*"):
        marker.unlink()
    for shard in (workspace / "records").rglob("part-*.parquet"):
        shard.unlink()
    code, result, err = run(study, workspace)
    assert code == 0, err
    assert "step-000005" in err
    same(result, workspace, undisturbed)


def test_another_learning_rate_redoes_training_and_nothing_before_it(undisturbed, tmp_path):
    study, workspace, _ = undisturbed
    workspace = copy(workspace, tmp_path)
    before = {p.name for p in (workspace / "cells").iterdir()}
    changed = tmp_path / "changed.toml"
    changed.write_text(study.read_text().replace("lr = 1e-3", "lr = 5e-4"))
    code, _, err = run(changed, workspace)
    assert code == 0, err
    new = {p.name for p in (workspace / "cells").iterdir()} - before
    assert {name.split("-")[0] for name in new} == {"train", "measure"}
    assert len(new) == 2 + 6


def test_a_disk_that_fills_up_is_one_clear_line_and_loses_nothing(undisturbed, tmp_path):
    study, _, _ = undisturbed
    workspace = tmp_path / "w"
    code, result, err = run(study, workspace, limit=60_000)
    assert (code, result) == (1, None)
    assert "Traceback" not in err
    assert "File too large" in err
    code, result, err = run(study, workspace)
    assert code == 0, err
    same(result, workspace, undisturbed)


def test_an_unwritable_workspace_is_one_clear_line(undisturbed, tmp_path):
    study, _, _ = undisturbed
    (tmp_path / "file").write_text("")
    code, _, err = run(study, tmp_path / "file" / "w")
    assert code == 1
    assert err.count("\n") == 1
    assert "cannot write" in err


def test_status_and_plan_speak_json(undisturbed):
    study, workspace, _ = undisturbed

    def ask(*words):
        out = subprocess.run(
            [sys.executable, "-m", "dipscope", *words, "--json"], capture_output=True, text=True
        )
        assert out.returncode == 0, out.stderr
        return json.loads(out.stdout.splitlines()[-1])

    status = ask("status", str(workspace))
    assert set(status["counts"]) == {"done"}
    plan = ask("plan", str(study), "--workspace", str(workspace))
    assert plan["total"]["cells"] == plan["total"]["complete"] == status["counts"]["done"]
    fresh = ask("plan", str(study), "--workspace", str(workspace / "elsewhere"))
    assert fresh["total"]["seconds"] > 0
    assert fresh["total"]["disk"] > 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('organism = "XS"', 'organism = "XXL"', "XXL"),
        ("organism/sort", "organism/sorting", "organism/sort"),
        ('variant = "no_cot"', 'variant = "no_cot"\nsource = "jsonl:nowhere.jsonl"', "nowhere.jsonl"),
        ("checkpoints = [2, 5, 8]", "checkpoints = [2, 50]", "50"),
        ("temperature = 0.7", "temperature = 0.0", "samples"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, old, new, said):
    assert old in STUDY
    study = tmp_path / "bad.toml"
    study.write_text(STUDY.replace(old, new))
    code, _, err = run(study, tmp_path / "w")
    assert code == 2, err
    assert err.count("\n") == 1
    assert said in err
