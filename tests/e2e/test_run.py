"""The whole chain through the command line, on a study small enough to be run, killed and damaged often."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dipscope import status as state
from dipscope.conclude import conclude

STUDY = """
[study]
name = "mini"

[models.tiny]
organism = "XS"

[datasets.search]
source = "countdown"
variant = "cot"
rows = 48

[datasets.cot]
mix = { search = 0.75, replay = 0.25 }
rows = 64

[datasets.no_cot]
source = "countdown"
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
    (folder / "stderr.txt").write_text(err)
    return study, folder / "w", result


def events(workspace):
    """The lines of the log."""
    return [json.loads(line) for line in (workspace / "log.jsonl").read_text().splitlines()]


def same(result, workspace, undisturbed):
    """Byte-identical analysis and the same records as the run nobody disturbed."""
    _, reference, expected = undisturbed
    assert result["records_digest"] == expected["records_digest"]
    assert (workspace / "analysis.json").read_bytes() == (reference / "analysis.json").read_bytes()


def copy(workspace, tmp_path):
    return Path(shutil.copytree(workspace, tmp_path / "copy"))


def test_the_study_ends_in_records_findings_and_a_page(undisturbed):
    _, workspace, result = undisturbed
    # step 0 once and three steps of two runs, 12 items × 2 samples × 3 benchmarks, plus likelihoods
    assert result["records"] >= 7 * 72
    assert len(result["findings"]) > 5
    assert result["errors"] == 0
    assert (workspace / "report" / "index.html").stat().st_size > 10_000


def test_what_the_look_at_the_rows_had_to_say_is_shown_and_kept(undisturbed):
    study, workspace, _ = undisturbed
    notes = json.loads((workspace / "analysis.json").read_text())["meta"]["preflight"]
    assert notes.keys() == {"cot for tiny", "no_cot for tiny"}
    assert all(some[0].startswith("64 rows, ") for some in notes.values())
    told = (study.parent / "stderr.txt").read_text()
    for name, some in notes.items():
        for note in some:
            assert f"tokenize {name}: {note}" in told


def test_the_log_counts_the_tokens_that_went_through_the_model(undisturbed):
    _, workspace, _ = undisturbed
    trained = [e for e in events(workspace) if e["event"] == "cell" and e["kind"] == "train"]
    assert len(trained) == 2
    for entry in trained:
        steps = (workspace / "runs" / entry["cell"].removeprefix("train-") / "train.jsonl").read_text()
        assert entry["work"] == sum(json.loads(line)["tokens"] for line in steps.splitlines())


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


def complete_cells(workspace):
    return len(list((workspace / "cells").glob("*.json")))


def until(process, happened):
    """Wait until something has happened or the process is gone."""
    give_up = time.monotonic() + 240
    while not happened() and process.poll() is None:
        assert time.monotonic() < give_up
        time.sleep(0.01)


def kill_often(study, workspace, cells, kills, seed):
    """Kill runs of a study; what each kill met: whether it was alive and unfinished, and how far it was.

    Every kill but the last two waits for a drawn number of cells to be completed. The last but one comes when
    all cells are complete and the analysis begins, the last one while the page is written.
    """
    draw = random.Random(seed)
    stored, met = workspace / "analysis.json", []
    for n in range(kills):
        before = complete_cells(workspace)
        goal = cells if n >= kills - 2 else min(before + draw.randint(1, 3), cells)
        stored.unlink(missing_ok=True)
        process = start(study, workspace)
        until(process, lambda goal=goal: complete_cells(workspace) >= goal)
        if n == kills - 1:
            until(process, stored.is_file)
        time.sleep(draw.uniform(0, 1))
        alive = process.poll() is None
        process.send_signal(signal.SIGKILL)  # the workers must notice by themselves
        process.communicate()
        finished = (workspace / "analysis.key").is_file()
        met.append((alive and not finished, complete_cells(workspace), stored.is_file()))
    return met


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_killing_it_anywhere_changes_nothing(undisturbed, tmp_path, seed):
    study, reference, _ = undisturbed
    workspace = tmp_path / "w"
    met = kill_often(study, workspace, complete_cells(reference), 4, seed)
    assert sum(unfinished for unfinished, _, _ in met) >= 3, met
    code, result, err = run(study, workspace)
    assert code == 0, err
    same(result, workspace, undisturbed)
    assert not list(workspace.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_of_a_longer_study_change_nothing(tmp_path):
    study, reference = tmp_path / "longer.toml", tmp_path / "reference"
    longer = {'name = "mini"': 'name = "mini"\nseeds = [0, 1]', "[2, 5, 8]": "[1, 2, 3, 5, 8]"}
    text = STUDY
    for old, new in longer.items():
        assert old in text
        text = text.replace(old, new)
    study.write_text(text)
    code, expected, err = run(study, reference)
    assert code == 0, err
    for seed in (1, 2, 3):
        workspace = tmp_path / f"w{seed}"
        met = kill_often(study, workspace, complete_cells(reference), 10, seed)
        print(f"seed {seed}: (alive and unfinished, complete cells, analysis written) {met}")
        assert sum(unfinished for unfinished, _, _ in met) >= 8, met
        code, result, err = run(study, workspace)
        assert code == 0, err
        same(result, workspace, (study, reference, expected))


@pytest.mark.parametrize("moment", ["at work", pytest.param("at the analysis", marks=pytest.mark.slow)])
def test_ctrl_c_says_how_to_go_on(undisturbed, tmp_path, moment):
    study, workspace, _ = undisturbed
    workspace = copy(workspace, tmp_path)
    for marker in (workspace / "cells").glob("measure-*" if moment == "at the analysis" else "*"):
        marker.unlink()
    before, goal = complete_cells(workspace), complete_cells(undisturbed[1])
    process = start(study, workspace)
    until(process, lambda: complete_cells(workspace) >= (goal if before else 3))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "dipscope: stopped. Run the same command again to go on."
    assert "Traceback" not in err


def test_a_mistyped_command_is_answered_with_its_usage():
    wrong = [sys.executable, "-m", "dipscope", "run", "demo", "--no-such-option"]
    answer = subprocess.run(wrong, capture_output=True, text=True)
    assert answer.returncode == 2
    assert "no-such-option" in answer.stderr
    assert "Usage" in answer.stderr
    assert "stopped" not in answer.stderr


@pytest.mark.parametrize(
    ("victim", "how", "redone"),
    [
        ("analysis.json", "removed", {"analysis.json", "analysis.key"}),
        ("analysis.json", "cut", {"analysis.json", "analysis.key"}),
        ("report/index.html", "emptied", {"report", "analysis.key"}),
        ("report/figures/*.svg", "removed", {"report", "analysis.key"}),
        ("analysis.key", "cut", {"analysis.json", "report", "analysis.key"}),
    ],
)
def test_damaged_results_are_computed_again_and_only_those(undisturbed, tmp_path, victim, how, redone):
    workspace = copy(undisturbed[1], tmp_path)
    old = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in workspace.rglob("*") if p.is_file()}
    path = sorted(workspace.glob(victim))[0]
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 0 if how == "emptied" else -100])
    made, at = state.recall(workspace)
    assert conclude(made, at)[2]
    new = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in old}
    assert {p: data for p, (data, _) in new.items()} == {p: data for p, (data, _) in old.items()}
    assert {p.relative_to(workspace).parts[0] for p in old if old[p][1] != new[p][1]} == redone
    assert not conclude(made, at)[2]


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


@pytest.mark.slow  # what every write does with a full disk is tested without a study, in test_full_disk.py
def test_a_disk_that_fills_up_is_one_clear_line_and_loses_nothing(undisturbed, tmp_path):
    study, _, _ = undisturbed
    workspace = tmp_path / "w"
    code, result, err = run(study, workspace, limit=60_000)
    assert (code, result) == (1, None)
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert "/step-000002: cannot write (File too large). Free space" in last, err
    assert not list(workspace.rglob("*.tmp"))
    ended = {e["cell"] for e in events(workspace) if e["event"] in ("cell", "failure")}
    assert {e["cell"] for e in events(workspace) if e["event"] == "start"} == ended
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
        ('source = "countdown"\nvariant = "no_cot"', 'path = "nowhere.jsonl"', "nowhere.jsonl"),
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


def test_what_a_dataset_is_called_reaches_the_analysis_without_new_work(undisturbed, tmp_path):
    study, workspace, _ = undisturbed
    workspace = copy(workspace, tmp_path)
    before = {p.name for p in (workspace / "cells").iterdir()}
    renamed = tmp_path / "renamed.toml"
    renamed.write_text(study.read_text().replace("no_cot]", "bare]").replace('"no_cot"]', '"bare"]'))
    code, result, err = run(renamed, workspace)
    assert code == 0, err
    assert {p.name for p in (workspace / "cells").iterdir()} == before
    assert any("/bare/" in f["scope"] for f in result["findings"])
