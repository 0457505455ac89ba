"""What a workspace is said to hold."""

import pytest

from dipscope import plan, status, study_files
from dipscope.errors import DipscopeError
from dipscope.study import Study
from dipscope.workspace import Workspace

STUDY = {
    "study": {"name": "s"},
    "models": {"tiny": {"organism": "XS"}},
    "datasets": {"cot": {"source": "countdown", "rows": 64}},
    "recipes": {"r": {"epochs": 2, "batch_size": 16, "checkpoints": [2, 8]}},
    "runs": {"models": ["tiny"], "datasets": ["cot"], "recipes": ["r"]},
    "measure": {"benchmarks": ["organism/sort"]},
}


@pytest.fixture
def workspace(tmp_path):
    made = Workspace(tmp_path)
    status.remember(Study.model_validate(STUDY), made)
    return made


@pytest.mark.parametrize("preset", ["demo", "smollm2", "paper/table1"])
def test_a_study_comes_back_with_the_cells_that_it_had(tmp_path, preset):
    study = study_files.load(preset)
    status.remember(study, Workspace(tmp_path))
    assert status.recall(tmp_path)[0].cells == plan.make(study).cells


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe\x00", b'{"study": {"name": "s"}}', b'{"study": 3}']
)
def test_a_damaged_study_is_one_clear_line(workspace, content):
    assert status.recall(workspace.root)[0].study.study.name == "s"
    (workspace.root / "study.json").write_bytes(content)
    with pytest.raises(DipscopeError, match="damaged") as caught:
        status.recall(workspace.root)
    assert str(caught.value).count("\n") == 0
    assert caught.value.exit_code == 1


def test_what_failed_or_was_torn_is_not_running(workspace, monkeypatch):
    plan, _ = status.recall(workspace.root)
    first, second = [c.id for c in plan.cells if not c.needs][:2]
    workspace.log("run")
    workspace.log("start", cell=first)
    workspace.log("start", cell=second)
    workspace.log("failure", cell=first, error="x")
    with (workspace.root / "log.jsonl").open("ab") as file:
        file.write(b'{"event": "st\xff\n[]\n3\n{"time": 1}\n')
    monkeypatch.setattr(Workspace, "taken", lambda self: True)
    states = {r["cell"]: r["state"] for r in status.cells(plan, workspace)}
    assert (states[first], states[second]) == ("missing", "running")
    monkeypatch.setattr(Workspace, "taken", lambda self: False)
    assert status.cells(plan, workspace)[1]["state"] == "missing"
