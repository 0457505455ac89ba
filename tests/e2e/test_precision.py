"""A study measured in both numeric formats: two sets of records, side by side and never mixed."""

import pytest

from dipscope import stages
from dipscope.conclude import collect
from dipscope.plan import make
from dipscope.study import Study
from dipscope.workspace import Workspace

STUDY = {
    "study": {"name": "formats"},
    "models": {"tiny": {"organism": "XS"}},
    "datasets": {"cot": {"source": "countdown", "rows": 16}},
    "recipes": {"r": {"lr": 1e-3, "epochs": 2, "batch_size": 8, "precision": "fp32", "checkpoints": [2, 4]}},
    "runs": {"models": ["tiny"], "datasets": ["cot"], "recipes": ["r"]},
}
MEASURE = {
    "benchmarks": ["organism/countdown", "organism/sort"],
    "items": 6,
    "samples": 2,
    "temperature": 0.7,
    "max_tokens": 32,
}


def finish(workspace, **measure):
    """Do what is left of the study; the kinds of the cells done, and the records it asks for."""
    plan, done = make(Study.model_validate({**STUDY, "measure": MEASURE | measure})), []
    for cell in plan.cells:
        if workspace.outputs(cell.id) is None:
            stages.do(cell, workspace, lambda *_: None)
            done.append(cell.kind)
    return done, collect(plan, workspace)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Measured by default first and in bf16 then, in one workspace."""
    workspace = Workspace(tmp_path_factory.mktemp("w"))
    return workspace, *finish(workspace), *finish(workspace, precision="bf16")


def test_another_format_measures_again_and_trains_nothing(both):
    _, first, _, again, _ = both
    assert first == ["base", "prepare", "tokenize", "train", "measure", "measure", "measure"]
    assert again == ["measure"] * 3


def test_records_say_their_format_and_each_study_gets_its_own(both):
    workspace, _, full, _, half = both
    task = ["checkpoint", "benchmark", "probe", "item", "sample"]
    assert full["checkpoint"].n_unique() == 3
    assert set(full["engine"]) == {"local/float32"}
    assert set(half["engine"]) == {"local/bfloat16"}
    assert full.select(task).equals(half.select(task))
    assert not set(full["sampling_hash"]) & set(half["sampling_hash"])
    assert not full["margin"].equals(half["margin"])  # it really was computed in another format
    for precision, table in (("fp32", full), ("bf16", half)):
        done, now = finish(workspace, precision=precision)
        assert done == []
        assert now.equals(table)


def test_in_bf16_a_record_does_not_depend_on_what_else_is_measured(both, tmp_path):
    half = both[-1]
    _, some = finish(Workspace(tmp_path), precision="bf16", items=3, benchmarks=["organism/sort"])
    keys = ["checkpoint", "benchmark", "item"]
    assert 0 < len(some) < len(half) / 2
    assert half.join(some.select(keys).unique(), on=keys, how="semi").equals(some)
