"""Which runs are said to have learned from the same queries."""

import pytest

from dipscope import stages
from dipscope.conclude import checkpoints
from dipscope.plan import make
from dipscope.study import Study
from dipscope.workspace import Workspace

ONE, OTHER = {"source": "countdown", "rows": 16}, {"source": "countdown", "rows": 16, "seed": 7}
DATASETS = {
    "one": ONE,
    "one_bare": {**ONE, "variant": "no_cot"},
    "other": OTHER,
    "other_bare": {**OTHER, "variant": "no_cot"},
    "one_replay": {"mix": {"one": 0.75, "replay": 0.25}, "rows": 16},
    "even": {"mix": {"one": 0.5, "other": 0.5}, "rows": 16},
    "even_turned": {"mix": {"other": 0.5, "one": 0.5}, "rows": 16},
    "even_bare": {"mix": {"one_bare": 0.5, "other_bare": 0.5}, "rows": 16},
    "even_replay": {"mix": {"one": 0.375, "other": 0.375, "replay": 0.25}, "rows": 16},
    "even_tokens": {"mix": {"one": 0.5, "other": 0.5}, "rows": 16, "mix_by": "tokens"},
    "uneven": {"mix": {"one": 0.75, "other": 0.25}, "rows": 16},
    "uneven_replay": {"mix": {"one": 0.5625, "other": 0.1875, "replay": 0.25}, "rows": 16},
    "shorter": {"mix": {"one": 0.5, "other": 0.5}, "rows": 8},
}
STUDY = {
    "study": {"name": "s"},
    "models": {"tiny": {"organism": "XS"}},
    "datasets": DATASETS,
    "recipes": {"r": {"epochs": 2, "batch_size": 8, "checkpoints": [2]}},
    "runs": {"models": ["tiny"], "datasets": list(DATASETS), "recipes": ["r"]},
    "measure": {"benchmarks": ["organism/sort"]},
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A workspace in which every dataset is there and every run is said to be done."""
    plan, workspace = make(Study.model_validate(STUDY)), Workspace(tmp_path_factory.mktemp("w"))
    for cell in plan.cells:
        if cell.kind in ("base", "replay", "prepare"):
            stages.do(cell, workspace, lambda *_: None)
        elif cell.kind == "train":
            workspace.complete(cell.id, {"checkpoints": []})
    return plan, workspace


def asked(plan, workspace):
    return {r["dataset"]: r["data"] for r in checkpoints(plan, workspace).iter_rows(named=True)}


def test_variant_replay_and_order_aside_the_shares_of_a_mix_decide_what_was_asked(prepared):
    by_data = {}
    for name, data in asked(*prepared).items():
        by_data.setdefault(data, set()).add(name)
    assert {frozenset(names) for names in by_data.values()} == {
        frozenset({"one", "one_bare", "one_replay"}),
        frozenset({"other", "other_bare"}),
        frozenset({"even", "even_turned", "even_bare", "even_replay"}),
        frozenset({"even_tokens"}),
        frozenset({"uneven", "uneven_replay"}),
        frozenset({"shorter"}),
    }
    assert "" not in by_data


def test_where_the_queries_of_a_part_are_not_recorded_it_is_not_known_what_was_asked(prepared):
    plan, workspace = prepared
    whole = asked(plan, workspace)
    victims = [c for c in plan.cells if c.kind == "prepare" and c.name == "other"]
    kept = {c.id: workspace.outputs(c.id) for c in victims}
    for cell, outputs in kept.items():
        workspace.complete(cell, {k: v for k, v in outputs.items() if k != "queries"})
    now = asked(plan, workspace)
    for cell, outputs in kept.items():
        workspace.complete(cell, outputs)
    unknown = {name for name, data in now.items() if data == ""}
    assert unknown == {n for n, d in DATASETS.items() if n == "other" or "other" in d.get("mix", {})}
    assert {n: d for n, d in now.items() if d} == {n: d for n, d in whole.items() if n not in unknown}
