"""Interrupted training ends where uninterrupted training ends, bit for bit, whatever was interrupted."""

import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tinymodel
import torch
from safetensors.torch import load_file

from dipscope.errors import DipscopeError
from dipscope.train import checkpoints
from dipscope.train.loop import train

torch.set_num_threads(1)
ROWS = tinymodel.examples(16)
RECIPE = tinymodel.recipe(max_steps=20, epochs=20, resume_every=10, checkpoints=(4, 12, 20))


class Stop(Exception):
    pass


def stop_at(step):
    def listen(report):
        if report.step == step:
            raise Stop

    return listen


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tinymodel.directory(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def straight(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight")
    return train(base, ROWS, RECIPE, 0, out)


def hashes(folders):
    return [checkpoints.verify(folder) for folder in folders]


def reports(out):
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in tinymodel.TIMED} for line in lines]


def test_twenty_steps_are_ten_and_ten(base, straight, tmp_path):
    with pytest.raises(Stop):
        train(base, ROWS, RECIPE, 0, tmp_path, stop_at(13))
    assert (tmp_path / "resume" / "000010").is_dir()
    seen = []
    resumed = train(base, ROWS, RECIPE, 0, tmp_path, lambda report: seen.append(report.step))
    assert seen == list(range(11, 21))
    assert hashes(resumed) == hashes(straight)
    assert reports(tmp_path) == reports(straight[0].parent)
    assert not (tmp_path / "resume").exists()


def test_the_optimizer_resumes_bit_for_bit(base, tmp_path):
    recipe = RECIPE.model_copy(update={"resume_every": 5})
    with pytest.raises(Stop):
        train(base, ROWS, recipe, 0, tmp_path / "broken", stop_at(7))
    for out in ("broken", "straight"):
        with pytest.raises(Stop):
            train(base, ROWS, recipe, 0, tmp_path / out, stop_at(17))
    one, two = (load_file(tmp_path / o / "resume/000015/state.safetensors") for o in ("broken", "straight"))
    assert one.keys() == two.keys() and any(name.startswith("exp_avg_sq/") for name in one)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(value.dtype == torch.float32 for value in one.values())


def test_only_the_newest_resume_point_is_kept(base, tmp_path):
    recipe = RECIPE.model_copy(update={"resume_every": 2})
    with pytest.raises(Stop):
        train(base, ROWS, recipe, 0, tmp_path, stop_at(9))
    assert [p.name for p in (tmp_path / "resume").iterdir()] == ["000008"]


def test_a_finished_run_is_not_repeated(base, straight):
    before = [path.stat().st_mtime_ns for path in straight]
    seen = []
    assert train(base, ROWS, RECIPE, 0, straight[0].parent, seen.append) == straight
    assert seen == [] and [path.stat().st_mtime_ns for path in straight] == before


@pytest.mark.parametrize("damage", ["flip", "truncate", "state", "missing"])
def test_a_damaged_resume_point_is_said_and_training_starts_over(base, straight, tmp_path, damage):
    with pytest.raises(Stop):
        train(base, ROWS, RECIPE, 0, tmp_path, stop_at(13))
    point = tmp_path / "resume" / "000010"
    _damage(point / "state.safetensors", damage, point / "state.json")
    seen, notes = [], []
    resumed = train(base, ROWS, RECIPE, 0, tmp_path, lambda r: seen.append(r.step), on_note=notes.append)
    assert seen[0] == 1 and len(notes) == 1 and "damaged" in notes[0]
    assert hashes(resumed) == hashes(straight)
    assert reports(tmp_path) == reports(straight[0].parent)


def test_a_resume_point_of_other_settings_is_not_used(base, tmp_path):
    with pytest.raises(Stop):
        train(base, ROWS, RECIPE, 0, tmp_path, stop_at(13))
    seen, notes = [], []
    train(base, ROWS, RECIPE, 1, tmp_path, lambda report: seen.append(report.step), on_note=notes.append)
    assert seen == list(range(1, 21)) and "other settings" in notes[0]


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "config", "marker", "keys", "binary"])
def test_a_damaged_checkpoint_is_detected_and_made_again(base, straight, tmp_path, damage):
    folders = train(base, ROWS, RECIPE, 0, tmp_path)
    victim = folders[1]
    if damage == "config":
        (victim / "config.json").write_text("{}")
    elif damage == "marker":
        (victim / checkpoints.MARKER).unlink()
    elif damage == "keys":
        (victim / checkpoints.MARKER).write_text('{"step": 12}')
    elif damage == "binary":
        (victim / checkpoints.MARKER).write_bytes(b"\xff\xfe")
    else:
        _damage(victim / "model.safetensors", damage)
    with pytest.raises(DipscopeError):
        checkpoints.verify(victim)
    seen = []
    made = train(base, ROWS, RECIPE, 0, tmp_path, lambda report: seen.append(report.step))
    assert hashes(made) == hashes(straight)
    assert seen == list(range(1, 13))  # no further than the checkpoint that was damaged
    assert reports(tmp_path) == reports(straight[0].parent)


@pytest.mark.parametrize(
    ("recipe", "kept"),
    [({"resume_every": 50}, []), ({"resume_every": 5}, ["resume"])],
    ids=["checkpoint", "resume point"],
)
def test_a_full_disk_is_one_clear_line_and_leaves_no_litter(base, tmp_path, recipe, kept):
    train(base, ROWS, RECIPE.model_copy(update={"checkpoints": (20,)} | recipe), 0, tmp_path / "fits")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(DipscopeError, match=r"cannot write \(File too large\)\. Free space") as caught:
            train(base, ROWS, RECIPE.model_copy(update={"checkpoints": (20,)} | recipe), 0, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_code == 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [*kept, "train.jsonl"]
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_weights_can_be_read_by_whom_the_umask_allows(base, tmp_path):
    before = os.umask(0o027)
    try:
        with pytest.raises(Stop):
            train(base, ROWS, RECIPE, 0, tmp_path, stop_at(12))
    finally:
        os.umask(before)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {p.name for p in files} >= {"model.safetensors", "state.safetensors", "config.json"}
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o640}


def test_a_checkpoint_lost_behind_the_resume_point_is_made_again(base, straight, tmp_path):
    with pytest.raises(Stop):
        train(base, ROWS, RECIPE, 0, tmp_path, stop_at(13))
    _damage(tmp_path / "step-000004" / "model.safetensors", "flip")
    notes = []
    assert hashes(train(base, ROWS, RECIPE, 0, tmp_path, on_note=notes.append)) == hashes(straight)
    assert len(notes) == 1 and "step-000004" in notes[0]


def test_a_checkpoint_lost_at_the_resume_point_is_written_from_it(base, straight, tmp_path):
    recipe = RECIPE.model_copy(update={"resume_every": 4})
    with pytest.raises(Stop):
        train(base, ROWS, recipe, 0, tmp_path, stop_at(13))
    lost = tmp_path / "step-000012"
    before = {path.name: path.read_bytes() for path in lost.iterdir()}
    _damage(lost / "model.safetensors", "flip")
    seen, notes = [], []
    again = train(base, ROWS, recipe, 0, tmp_path, lambda r: seen.append(r.step), on_note=notes.append)
    assert hashes(again) == hashes(straight) and seen == list(range(13, 21)) and notes == []
    assert {path.name: path.read_bytes() for path in lost.iterdir()} == before


def _damage(path: Path, how: str, state: Path | None = None):
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[-3] ^= 1
        path.write_bytes(data)
    elif how == "truncate":
        path.write_bytes(data[: len(data) // 2])
    elif how == "missing":
        path.unlink()
    elif state is not None:
        state.write_text('{"step": ')


CHILD = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import tinymodel
from dipscope.train.loop import train
recipe = tinymodel.recipe(max_steps=20, epochs=20, resume_every=2, checkpoints=(4, 12, 20))
rows = tinymodel.examples(16)
train(Path(sys.argv[2]), rows, recipe, 0, Path(sys.argv[3]), lambda r: print(r.step, flush=True))
"""


def test_survives_being_killed_at_random_moments(base, straight, tmp_path):
    """SIGKILL twice, each a random time after the first step of the try."""
    draw = random.Random(time.time_ns())
    command = [sys.executable, "-c", CHILD, str(Path(tinymodel.__file__).parent), str(base), str(tmp_path)]
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout.readline()
            time.sleep(draw.uniform(0, 0.15))
            os.kill(child.pid, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    folders = [tmp_path / f"step-{step:06d}" for step in (4, 12, 20)]
    assert hashes(folders) == hashes(straight)
    assert reports(tmp_path) == reports(straight[0].parent)
