"""What is redone follows from the keys, and the keys from what matters."""

import pytest

from dipscope.errors import DipscopeError
from dipscope.plan import VERSIONS, make
from dipscope.study import Study

TREE = {
    "study": {"name": "s", "seeds": [0, 1]},
    "models": {"tiny": {"organism": "XS"}, "small": {"organism": "S"}},
    "datasets": {
        "cot": {"source": "countdown", "rows": 64},
        "mixed": {"mix": {"cot": 0.75, "replay": 0.25}, "rows": 64},
    },
    "recipes": {"r": {"epochs": 2, "batch_size": 16, "checkpoints": [2, 8]}},
    "runs": {"models": ["tiny"], "datasets": ["cot", "mixed"], "recipes": ["r"]},
    "measure": {"benchmarks": ["organism/sort", "organism/countdown"]},
}


def change(tree, path, value):
    head, *rest = path.split(".")
    return {**tree, head: change(tree[head], ".".join(rest), value) if rest else value}


def keys(tree):
    plan = make(Study.model_validate(tree))
    return {kind: {c.id for c in plan.cells if c.kind == kind} for kind in VERSIONS}


def test_the_cells_of_a_study():
    made = keys(TREE)
    # the base is measured once, whatever number of runs start from it
    assert {k: len(v) for k, v in made.items()} == {
        "base": 1, "replay": 1, "prepare": 2, "tokenize": 2, "train": 4, "measure": 1 + 4 * 2
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "changed"),
    [
        ("study.name", "other", set()),
        ("analysis", {"margin": 0.05}, set()),
        ("recipes.r.lr", 1e-3, {"train", "measure"}),
        ("measure.items", 7, {"measure"}),
        ("measure.precision", "bf16", {"measure"}),
        ("datasets.cot.variant", "no_cot", {"prepare", "tokenize", "train", "measure"}),
        ("models.tiny.organism", "S", {"base", "replay", "prepare", "tokenize", "train", "measure"}),
    ],
)
def test_only_what_depends_on_a_setting_gets_new_keys(path, value, changed):
    before, after = keys(TREE), keys(change(TREE, path, value))
    assert {kind for kind in before if before[kind] != after[kind]} == changed


def test_a_dataset_without_replay_is_made_once_for_all_models():
    made = keys(change(TREE, "runs.models", ["tiny", "small"]))
    assert len(made["prepare"]) == 1 + 2


def test_variants_of_one_dataset_share_their_replay():
    datasets = {
        "search": {"source": "countdown", "rows": 48},
        "answers": {"source": "countdown", "rows": 48, "variant": "no_cot"},
        "cot": {"mix": {"search": 0.75, "replay": 0.25}, "rows": 64},
        "mixed": {"mix": {"answers": 0.75, "replay": 0.25}, "rows": 64},
    }
    made = keys(change(TREE, "datasets", datasets))
    assert (len(made["replay"]), len(made["prepare"])) == (1, 4)


def test_every_cell_stands_after_what_it_needs():
    plan = make(Study.model_validate(TREE))
    seen = set()
    for cell in plan.cells:
        assert seen.issuperset(cell.needs)
        seen.add(cell.id)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("measure.benchmarks", ["organism/none"], "organism/none"),
        ("measure.benchmarks", ["nothing/*"], "Families are"),
        ("measure.benchmark", {"organism/reverse": {"items": 3}}, "organism/reverse"),
        ("models.tiny", {"organism": "XXL"}, "models.tiny: there is no organism of size 'XXL'"),
        ("models.tiny", {"path": "nowhere"}, "nowhere"),
        ("datasets.cot", {"path": "nowhere.jsonl"}, "nowhere.jsonl"),
        ("datasets.cot", {"hub": "lab/unknown"}, "rows = N"),
        ("datasets.mixed.rows", 128, "takes 96 rows of 'cot'"),
        ("recipes.r.checkpoints", [2, 99], "recipes.r: checkpoints [99]"),
        ("measure.samples", 2, "temperature"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(path, value, said):
    with pytest.raises(DipscopeError) as caught:
        make(Study.model_validate(change(TREE, path, value)))
    assert said in str(caught.value)
    assert caught.value.exit_code == 2
