"""Weights that everything is done with are deleted; the workspace stays whole, and they can be had again."""

import pytest
import tinymodel
import torch
from test_integrity import STUDY, TRAIN, do_base, flip, inputs, silent

from dipscope import bases, integrity, retention, stages
from dipscope.data.tokenize import TokenTable
from dipscope.errors import DipscopeError
from dipscope.plan import make
from dipscope.study import Study
from dipscope.train import checkpoints
from dipscope.train.layout import Layout
from dipscope.weights import weights_hash
from dipscope.workspace import Workspace, hash_file


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "w")


@pytest.fixture
def plan():
    return make(Study.model_validate(STUDY | {"study": {"name": "s", "seeds": [0, 1]}}))


def cells(plan, kind):
    return [cell for cell in plan.cells if cell.kind == kind]


@pytest.fixture
def trained(plan, workspace, tmp_path):
    """The folders of a workspace in which every run is trained and nothing is measured."""
    model = tinymodel.model()
    layout = Layout.of(model, tinymodel.directory(tmp_path / "source"), torch.float32)
    folders = {}
    for cell in cells(plan, "train"):
        left = []
        for step in cell.settings["steps"]:
            folder = workspace.root / "runs" / cell.key / f"step-{step:06d}"
            with torch.no_grad():
                model.model.norm.weight.fill_(step)
            digest = checkpoints.save(model.state_dict(), layout, folder, {"step": step, "fingerprint": "f"})
            left.append(
                {"step": step, "tokens": 1, "checkpoint": digest, "folder": workspace.relative(folder)}
            )
            folders[cell.id, step] = folder
        workspace.complete(cell.id, {"checkpoints": left, "notes": [], "work": 1})
    return folders


def measured(plan, workspace, *steps, errors=0):
    """Mark the measurements at some steps of all runs as done; their ids."""
    made = []
    for cell in cells(plan, "measure"):
        if cell.settings["step"] in steps:
            done = workspace.outputs(cell.needs[0])["checkpoints"]
            digest = next(c["checkpoint"] for c in done if c["step"] == cell.settings["step"])
            workspace.complete(cell.id, {"checkpoint": digest, "shards": [], "errors": errors})
            made.append(cell.id)
    return made


def dropped(trained):
    return sorted({step for (_, step), folder in trained.items() if not (folder / "config.json").exists()})


@pytest.mark.parametrize(("keep", "gone"), [("all", []), ("last", [2]), ("none", [2, 8])])
def test_what_is_measured_goes_by_the_rule(plan, workspace, trained, keep, gone):
    measured(plan, workspace, 2, 8)
    assert len(retention.sweep(plan, workspace, keep)) == 2 * len(gone)
    assert dropped(trained) == gone
    assert all(checkpoints.read_marker(folder)["weights"] for folder in trained.values())
    assert retention.sweep(plan, workspace, keep) == []


def test_what_is_still_to_be_measured_stays(plan, workspace, trained):
    assert retention.sweep(plan, workspace, "none") == []
    measured(plan, workspace, 2, errors=1)  # an error is tried again
    measured(plan, workspace, 8)
    retention.sweep(plan, workspace, "none")
    assert dropped(trained) == [8]


def test_after_a_measurement_only_its_own_checkpoint_is_looked_at(plan, workspace, trained):
    first, second = measured(plan, workspace, 2)
    assert retention.sweep(plan, workspace, "none", first) == [trained[plan.cell(first).needs[0], 2]]
    assert retention.sweep(plan, workspace, "none", second) == [trained[plan.cell(second).needs[0], 2]]
    (base,) = [c.id for c in cells(plan, "measure") if c.settings["step"] == 0]
    assert retention.sweep(plan, workspace, "none", base) == []


def test_a_dropped_checkpoint_is_no_damage(plan, workspace, trained):
    measured(plan, workspace, 2, 8)
    retention.sweep(plan, workspace, "none")
    assert integrity.heal(plan, workspace) == []
    assert all(workspace.outputs(c.id) for c in cells(plan, "train"))


def test_a_new_measurement_wants_the_weights_again_and_says_so(plan, workspace, trained):
    ids = measured(plan, workspace, 2, 8)
    retention.sweep(plan, workspace, "none")
    first = cells(plan, "train")[0]
    for cell_id in ids:
        if plan.cell(cell_id).needs[0] == first.id:
            workspace.forget(cell_id)
    assert integrity.heal(plan, workspace) == [
        f"the weights of {first.name} @ 2, 8 were dropped and are needed again"
    ]
    assert workspace.outputs(first.id) is None
    assert [checkpoints.is_done(trained[c.id, 8], "f") for c in cells(plan, "train")] == [False, True]


@pytest.mark.parametrize("marker", ["absent", "damaged"])
def test_weights_are_wanted_of_a_run_that_is_not_complete_too(plan, workspace, trained, marker):
    ids = measured(plan, workspace, 2, 8)
    retention.sweep(plan, workspace, "none")
    first = cells(plan, "train")[0]
    workspace.forget(next(i for i in ids if plan.cell(i).needs[0] == first.id))
    workspace.forget(first.id)
    if marker == "damaged":
        workspace.marker(first.id).write_text("{")
    notes = integrity.heal(plan, workspace)
    assert notes[0] == f"the weights of {first.name} @ 2 were dropped and are needed again"
    assert len(notes) == (2 if marker == "damaged" else 1)
    assert [checkpoints.is_done(trained[first.id, step], "f") for step in (2, 8)] == [False, True]


def test_a_deletion_that_was_cut_off_is_finished_by_the_next_one(plan, workspace, trained):
    measured(plan, workspace, 2, 8)
    retention.sweep(plan, workspace, "none")
    (folder, *_) = trained.values()
    (folder / "model.safetensors").write_bytes(b"left")  # the order in which files go is the system's
    assert retention.sweep(plan, workspace, "none") == [folder]
    assert [path.name for path in folder.iterdir()] == [checkpoints.MARKER]


def test_records_that_are_damaged_bring_the_weights_back(plan, workspace, trained):
    cell = plan.cell(measured(plan, workspace, 2, 8)[0])
    workspace.complete(cell.id, {**workspace.outputs(cell.id), "shards": ["gone.parquet"]})
    retention.sweep(plan, workspace, "none")
    first, second = integrity.heal(plan, workspace)
    assert "gone.parquet" in first and "@ 2 were dropped" in second


def test_records_of_other_weights_are_measured_again(plan, workspace, trained, tmp_path):
    cell = plan.cell(measured(plan, workspace, 2, 8)[0])
    folder, model = trained[cell.needs[0], 2], tinymodel.model(seed=1)
    layout = Layout.of(model, tmp_path / "source", torch.float32)
    digest = checkpoints.save(model.state_dict(), layout, folder, {"step": 2, "fingerprint": "f"})
    outputs = workspace.outputs(cell.needs[0])
    outputs["checkpoints"][0]["checkpoint"] = digest
    workspace.complete(cell.needs[0], outputs)
    assert integrity.heal(plan, workspace) == [
        f"{cell.name} was measured on other weights than the checkpoint has now"
    ]
    assert workspace.outputs(cell.id) is None and workspace.outputs(cell.needs[0]) is not None


def test_dropped_weights_are_trained_again_up_to_where_they_are_wanted(workspace, monkeypatch):
    monkeypatch.setattr(
        bases,
        "resolve",
        lambda model, cache, on_step=None: cache if cache.is_dir() else tinymodel.directory(cache),
    )
    tokens = workspace.root / "data" / "k2" / "tokens.safetensors"
    TokenTable.of(tinymodel.examples(16)).write(tokens)
    left = {"tokens": workspace.relative(tokens), "sha256": hash_file(tokens), "notes": []}
    workspace.complete("tokenize-k2", left)
    do_base(workspace)
    first = stages.train(TRAIN, inputs(workspace, TRAIN), workspace, silent)
    two, eight = (workspace.absolute(c["folder"]) for c in first["checkpoints"])
    before = weights_hash(two)
    for folder in (two, eight):
        checkpoints.drop(folder)
    assert stages.train(TRAIN, inputs(workspace, TRAIN), workspace, silent) == first | {"work": 0}
    checkpoints.want(two)
    seen = []
    again = stages.train(TRAIN, inputs(workspace, TRAIN), workspace, lambda step, *_: seen.append(step))
    assert seen == [1, 2] and weights_hash(two) == before
    assert again["checkpoints"] == first["checkpoints"]
    assert not (eight / "config.json").exists()
    flip(two / "model.safetensors")
    with pytest.raises(DipscopeError):
        checkpoints.verify(two)


@pytest.mark.parametrize(
    ("keep", "workers", "peak", "final"),
    [("all", 1, 4 * 10 + 7, 40), ("last", 1, 20 + 10 + 7, 20), ("last", 2, 20 + 20 + 14, 20),
     ("none", 1, 20 + 7, 0), ("none", 9, 40 + 14, 0)],
)  # fmt: skip
def test_the_disk_a_plan_takes(plan, keep, workers, peak, final):
    """Two runs of two checkpoints, 10 bytes each, and a resume point of 7."""
    assert retention.disk(plan, keep, workers, lambda cell: (10, 7)) == retention.Disk(peak, final)
