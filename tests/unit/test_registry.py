"""Names of benchmarks, and how a study says under which protocol and from which file they are measured."""

import json
from pathlib import Path

import pytest
from test_plan import TREE

from dipscope.benchmarks import registry
from dipscope.benchmarks.published import Published
from dipscope.costs.outlook import outlook
from dipscope.errors import DipscopeError
from dipscope.measure import tasks
from dipscope.plan import BenchmarkPlan, make
from dipscope.study import Study

TEN = (
    "math500", "aime24", "livecodebench", "gpqa_diamond", "mmlu_pro", "ifeval", "alpaca_eval", "halueval",
    "truthfulqa", "hex_phi",
)  # fmt: skip


def test_the_papers_ten_by_domain() -> None:
    found = registry.resolve(["paper/*"])
    assert [b.name for b in found] == [f"paper/{name}" for name in TEN]
    assert [b.domain for b in found] == ["in_domain"] * 2 + ["ood_reasoning"] * 3 + ["ood_general"] * 4 + [
        "safety"
    ]


@pytest.mark.parametrize("name", registry.PUBLISHED)
def test_every_published_benchmark_has_both_protocols(name: str) -> None:
    strict, paper = (registry.get(name, protocol) for protocol in ("strict", "paper"))
    assert isinstance(strict, Published) and strict.name == paper.name == name
    assert strict.scorer != paper.scorer and strict.size > 0 and strict.source.licence
    assert registry.get(name) is strict


def test_over_refusal_is_never_measured_alone() -> None:
    both = ["public/xstest", "public/xstest_benign"]
    assert registry.names([both[0], "small/add"]) == [*both, "small/add"]
    assert registry.names(["public/xstest_*"]) == both[::-1]


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("paper/gpqa", "paper/gpqa_diamond"), ("math500", "paper/math500"), ("small/ad", "small/add"),
        ("public/math500", "paper/math500"), ("papr/*", "paper/*"), ("paper/", "It has: paper/math500"),
        ("xyz", "Families"),
    ],
)  # fmt: skip
def test_mistakes_are_explained(pattern: str, hint: str) -> None:
    with pytest.raises(DipscopeError) as caught:
        registry.names([pattern])
    assert hint in caught.value.fix and caught.value.where == "measure.benchmarks"


# In a study


@pytest.fixture
def aime(tmp_path: Path) -> Path:
    path = tmp_path / "aime.jsonl"
    rows = [
        {"problem": f"Problem {i}", "answer": str(100 + i), "solution": f"It is {100 + i}."} for i in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def measured(**measure: object) -> dict[str, BenchmarkPlan]:
    plan = make(Study.model_validate({**TREE, "measure": measure}))
    return {b.benchmark.name: b for b in plan.benchmarks}


def test_defaults_of_a_benchmark_then_measure_then_its_own_options() -> None:
    names = ["paper/math500", "paper/aime24", "paper/mmlu_pro", "organism/sort"]
    plans = measured(benchmarks=names)
    told = {name: (p.items, p.samples, p.temperature, p.top_p, p.max_tokens) for name, p in plans.items()}
    assert told["paper/math500"] == (500, 3, 0.6, 0.95, 32768)
    assert told["paper/aime24"] == (30, 10, 0.6, 0.95, 32768)
    assert told["paper/mmlu_pro"] == (1000, 1, 0.6, 1.0, 32768)
    assert told["organism/sort"][:4] == (100, 1, 0.0, 1.0)
    own = {"paper/aime24": {"samples": 2, "temperature": 1.0}}
    plans = measured(benchmarks=names, items=40, samples=1, temperature=0.0, benchmark=own)
    told = {name: (p.items, p.samples, p.temperature, p.top_p) for name, p in plans.items()}
    assert told["paper/math500"] == (40, 1, 0.0, 0.95) and told["paper/aime24"] == (30, 2, 1.0, 0.95)


def test_the_protocol_of_all_and_of_one() -> None:
    own = {"paper/aime24": {"protocol": "strict"}}
    plans = measured(
        benchmarks=["paper/math500", "paper/aime24", "small/add"], protocol="paper", benchmark=own
    )
    assert [p.benchmark.scorer.rpartition("+")[2] for p in plans.values()][:2] == ["paper", "strict"]
    assert plans["small/add"].source == {}
    with pytest.raises(DipscopeError, match="protocol is for published benchmarks"):
        measured(benchmarks=["small/add"], benchmark={"small/add": {"protocol": "paper"}})
    with pytest.raises(DipscopeError, match="path is for published benchmarks"):
        measured(benchmarks=["small/add"], benchmark={"small/add": {"path": "x.jsonl"}})


def test_a_local_file_decides_the_key_by_its_content(aime: Path) -> None:
    def key() -> str:
        own = {"paper/aime24": {"path": str(aime)}}
        tree = {**TREE, "measure": {"benchmarks": ["paper/aime24"], "benchmark": own}}
        return next(c.key for c in make(Study.model_validate(tree)).cells if c.kind == "measure")

    before = key()
    aime.touch()
    assert key() == before
    aime.write_text(aime.read_text() + '{"problem": "more", "answer": "1"}\n')
    assert key() != before
    aime.unlink()
    with pytest.raises(DipscopeError, match=r"there is no file .*aime\.jsonl"):
        key()


def test_records_are_asked_for_from_the_file_and_under_the_protocol(aime: Path) -> None:
    asked = {}
    for protocol in ("strict", "paper"):
        own = {"paper/aime24": {"path": str(aime), "protocol": protocol, "samples": 2}}
        tree = {**TREE, "measure": {"benchmarks": ["paper/aime24"], "benchmark": own}}
        cell = next(c for c in make(Study.model_validate(tree)).cells if c.kind == "measure")
        asked[protocol] = tasks(json.loads(json.dumps(cell.settings["benchmarks"])), "engine")
    for found in asked.values():
        assert sum(t.probe == "generate" for t in found) == 4 * 2
        assert sum(t.probe == "likelihood" for t in found) == 4
    strict, paper = ({t.item.id: t for t in found} for found in asked.values())
    assert strict.keys() == paper.keys()
    assert all(strict[i].prompt_hash != paper[i].prompt_hash for i in strict)
    assert all(strict[i].item.gold == paper[i].item.gold[6:-1] for i in strict)


def test_a_plan_needs_no_items_and_says_what_would_be_fetched(aime: Path) -> None:
    own = {"paper/aime24": {"path": str(aime)}}
    tree = {**TREE, "measure": {"benchmarks": ["paper/*", "small/add"], "benchmark": own}}
    notes = [note for note in outlook(make(Study.model_validate(tree))).notes if "is fetched" in note]
    assert len(notes) == 9 and all(note.startswith("paper/") and "\n" not in note for note in notes)
    assert not any("aime24" in note for note in notes)
    (gpqa,) = (note for note in notes if "gpqa" in note)
    assert "Idavidrein/gpqa@633f5ee89ab8, gpqa_diamond.csv" in gpqa and "HF_TOKEN" in gpqa


@pytest.mark.parametrize(("name", "protocol"), [("paper/aime24", "strict"), ("paper/math500", "paper")])
def test_dev_is_refused_before_anything_runs(name: str, protocol: str) -> None:
    with pytest.raises(DipscopeError, match="has no dev split"):
        measured(benchmarks=[name], protocol=protocol, split="dev")
    assert measured(benchmarks=["paper/math500"], split="dev")
