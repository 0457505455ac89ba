"""Tasks of lm-eval: the same prompts and scores as its own evaluator gives on the same completions.

The tasks are lm-eval's own definitions with the data exchanged for made-up rows in the published layout.
"""

import hashlib
import json
import random
from pathlib import Path

import pytest

pytest.importorskip("lm_eval")

import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from dipscope.benchmarks import lm_eval_tasks, placeless
from dipscope.errors import DipscopeError
from dipscope.scoring.thinking import split

TASKS = Path(lm_eval.__file__).parent / "tasks"
WORDS = (
    "amber", "basalt", "cedar", "delta", "ember", "fjord",
    "garnet", "harbour", "ibis", "juniper", "kelp", "lagoon",
)  # fmt: skip


def gsm8k(i):
    a, b = 3 + i, 11 + 2 * i
    return {"question": f"{WORDS[i]} has {a} pears and buys {b}. How many now?",
            "answer": f"{a} + {b} = {a + b}\n#### {a + b}"}  # fmt: skip


def gsm8k_says(doc, i):
    right = doc["answer"].split("#### ")[1]
    return [f"So #### {right}", f"It is {right}.", "#### 1", "no idea", f"#### ${right}.",
            f"#### {right}\nQuestion: and #### 5"][i % 6]  # fmt: skip


def triviaqa(i):
    names = [WORDS[i], f"the {WORDS[i]}"]
    return {"question": f"Which word has number {i}", "answer": {"aliases": names, "value": WORDS[i]}}


def triviaqa_says(doc, i):
    return [f" {doc['answer']['value'].upper()}. Sure", " The " + doc["answer"]["value"], " ochre\nno"][i % 3]


def nq_open(i):
    return {"question": f"what is word {i}", "answer": [WORDS[i]] if i % 2 else [f"A {WORDS[i]}", "x"]}


def nq_open_says(doc, i):
    return [f" the {doc['answer'][0]}", f" {doc['answer'][0]}, I think", " ochre"][i % 3]


def drop(i):
    spans = {"number": "", "date": {"day": "", "month": "", "year": ""}, "spans": [WORDS[i], WORDS[i - 1]]}
    number = {**spans, "number": str(i + 20), "spans": []}
    validated = {key: [number[key]] for key in ("number", "date", "spans")}
    return {"query_id": str(i), "section_id": "s", "passage": f"{WORDS[i]} and {WORDS[i - 1]}.",
            "question": "Which two?", "answer": spans, "validated_answers": validated}  # fmt: skip


def drop_says(doc, i):
    first, second = doc["answers"][0]
    return [f" {first} {second}", f" {first}", f" {doc['answers'][1][0]}", " nothing. at all"][i % 4]


def arc_easy(i):
    texts = [WORDS[(i + k) % 12] + " stone" * k for k in range(4)]
    return {"id": str(i), "question": f"Which is number {i}?", "answerKey": "ABCD"[i % 4],
            "choices": {"text": texts, "label": list("ABCD")}}  # fmt: skip


def boolq(i):
    return {"passage": f"About {WORDS[i]}.", "question": f"is {WORDS[i]} a word", "label": i % 2}


def hellaswag(i):
    endings = [f"goes [title] to {WORDS[(i + k) % 12]}{' again' * k}." for k in range(4)]
    return {"ctx_a": f"A {WORDS[i]} waits.", "ctx_b": "it", "activity_label": "Waiting", "endings": endings,
            "label": str(i % 4)}  # fmt: skip


def lambada(i):
    return {"text": f"The {WORDS[i]} met the {WORDS[i - 1]} and then the {WORDS[i]}"}


MADE = {
    "gsm8k": ("gsm8k/gsm8k.yaml", gsm8k, gsm8k_says),
    "triviaqa": ("triviaqa/default.yaml", triviaqa, triviaqa_says),
    "nq_open": ("nq_open/nq_open.yaml", nq_open, nq_open_says),
    "drop": ("drop/default.yaml", drop, drop_says),
    "arc_easy": ("arc/arc_easy.yaml", arc_easy, None),
    "boolq": ("super_glue/boolq/default.yaml", boolq, None),
    "hellaswag": ("hellaswag/hellaswag.yaml", hellaswag, None),
    "lambada": ("lambada/lambada_openai.yaml", lambada, None),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("tasks")
    for name, (include, row, _) in MADE.items():
        rows = [json.dumps(row(i)) + "\n" for i in range(12)]
        (made / f"{name}-eval.jsonl").write_text("".join(rows[:6]))
        (made / f"{name}-train.jsonl").write_text("".join(rows[6:]))
        files = {split: str(made / f"{name}-eval.jsonl") for split in ("test", "validation")}
        files["train"] = str(made / f"{name}-train.jsonl")
        data = {"data_files": files, "cache_dir": str(made / "cache")}
        write(made, f"made_{name}", TASKS / include, data)
    return made


def write(folder, name, include, data, more=""):
    path = folder / f"{name}.yaml"
    path.write_text(
        f"include: {include}\ntask: {name}\ndataset_path: json\ndataset_name: null\n"
        f"dataset_kwargs: {json.dumps(data)}\n{more}"
    )
    return path


class Fixed(LM):
    """A model that gives fixed completions, cut at the stop strings as lm-eval's models do."""

    def __init__(self, says):
        super().__init__()
        self.says, self.said, self.lls = says, {}, {}

    def generate_until(self, requests):
        cut = []
        for i, request in enumerate(requests):
            prompt, options = request.args
            text = self.said[prompt] = self.says(request.doc, i)
            for stop in options["until"]:
                text = text.split(stop)[0]
            cut.append(text)
        return cut

    def loglikelihood(self, requests):
        for request in requests:
            digest = hashlib.sha256("\n".join(request.args).encode()).digest()
            self.lls[request.args] = (-1 - digest[0] / 16, digest[1] % 2 == 0)
        return [self.lls[request.args] for request in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError


def theirs(folder, name, shots=None):
    """lm-eval's own evaluation: the model, the logged samples and the results."""
    model = Fixed(MADE[name][2])
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    state = random.getstate()
    found = lm_eval.simple_evaluate(
        model, tasks=[f"made_{name}"], task_manager=manager, num_fewshot=shots, bootstrap_iters=0
    )
    random.setstate(state)
    return model, found["samples"][f"made_{name}"], found["results"][f"made_{name}"]


def ours(folder, name, query=""):
    return lm_eval_tasks.get(f"lm_eval/made_{name}{query}", str(folder / f"made_{name}.yaml"))


@pytest.mark.parametrize(
    ("name", "query", "shots", "metric", "filter_name", "varied"),
    [
        ("gsm8k", "", None, "exact_match", "strict-match", 2),
        ("gsm8k", "?filter=flexible-extract&shots=2", 2, "exact_match", "flexible-extract", 2),
        ("triviaqa", "?shots=3", 3, "exact_match", "remove_whitespace", 2),
        ("nq_open", "", None, "exact_match", "remove_whitespace", 2),
        ("drop", "", None, "em", "none", 2),
        ("drop", "?metric=f1", None, "f1", "none", 3),
    ],
)
def test_generation_has_the_prompts_and_scores_of_lm_eval(
    folder, name, query, shots, metric, filter_name, varied
):
    model, samples, results = theirs(folder, name, shots)
    benchmark = ours(folder, name, query)
    items = benchmark.items(100, "test")
    assert sorted(item.prompt for item in items) == sorted(model.said)
    wanted = {s["arguments"][0][0]: s[metric] for s in samples if s["filter"] == filter_name}
    judged = {item.prompt: benchmark.judge(item, split(model.said[item.prompt])) for item in items}
    assert {prompt: one.score for prompt, one in judged.items()} == wanted
    assert len(set(wanted.values())) >= varied  # else nothing would have been compared
    mean = sum(one.score for one in judged.values()) / len(judged)
    assert mean == pytest.approx(results[f"{metric},{filter_name}"], abs=1e-12)
    assert all((one.verdict == "correct") == (one.score == 1) for one in judged.values())


@pytest.mark.parametrize(
    ("name", "query", "shots"), [("arc_easy", "", None), ("boolq", "", None), ("hellaswag", "?shots=2", 2)]
)
def test_options_are_those_of_lm_eval_and_lead_to_its_scores_when_normalised_its_way(
    folder, name, query, shots
):
    model, samples, results = theirs(folder, name, shots)
    items = {item.prompt: item for item in ours(folder, name, query).items(100, "test")}
    assert len(items) == len(samples) == 6
    scores = {"acc": [], "acc_norm": []}
    for sample in samples:
        item = items[sample["arguments"][0][0]]
        continuations = [continuation for _, continuation in sample["arguments"]]
        assert sorted(item.options) == sorted(continuations)
        assert item.options[0] == continuations[int(sample["target"])]
        sums = {option: model.lls[item.prompt, option][0] for option in item.options}
        lengths = {"acc": lambda option: 1, "acc_norm": lambda option: len(option.removeprefix(" "))}
        for metric, length in lengths.items():
            best = max(item.options, key=lambda option: sums[option] / length(option))
            scores[metric].append(best == item.options[0])
            if metric in sample:
                assert sample[metric] == (best == item.options[0])
    assert sum(scores["acc"]) / 6 == pytest.approx(results["acc,none"])
    assert 0 < sum(scores["acc"]) < 6


def test_a_greedy_continuation_scores_as_lm_eval_scores_it(folder):
    model, samples, _ = theirs(folder, "lambada")
    benchmark = ours(folder, "lambada")
    items = {item.prompt: item for item in benchmark.items(100, "test")}
    assert {sample["acc"] for sample in samples} == {0, 1}
    for sample in samples:
        prompt, target = sample["arguments"][0]
        greedy = model.lls[prompt, target][1]
        said = f"{target} and on" if greedy else " something else"
        assert benchmark.judge(items[prompt], split(said)).score == sample["acc"]


def test_thinking_is_not_scored_and_never_cut_by_a_stop_string(folder):
    model, *_ = theirs(folder, "gsm8k")
    benchmark = ours(folder, "gsm8k")
    item = next(i for i in benchmark.items(9, "test") if model.said[i.prompt].startswith("So"))
    right = model.said[item.prompt]
    assert benchmark.judge(item, split(f"<think>Question: #### 1</think>{right}")).verdict == "correct"
    assert benchmark.judge(item, split(f"<think>{right}")).verdict == "missing"
    assert benchmark.judge(item, split("no number")).verdict == "missing"  # the filter finds nothing
    assert benchmark.judge(item, split("#### 1")).verdict == "wrong"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [("{}", "correct"), ("Answer: {}.", "correct"), ("Hm, hard to say", "missing"), ("other", "wrong")],
)
def test_what_is_written_on_multiple_choice_is_read_by_text(folder, said, wanted):
    benchmark = ours(folder, "arc_easy")
    item = benchmark.items(1, "test")[0]
    right, other = (item.options[k].strip() for k in (0, 1))
    said = other if said == "other" else said.format(right)
    assert benchmark.judge(item, split(said)).verdict == wanted


def test_items_are_the_same_again_and_chance_elsewhere_is_not_touched(folder):
    first = ours(folder, "gsm8k", "?shots=3")
    random.seed(5)
    before = random.getstate()
    items = first.items(6, "test")
    assert random.getstate() == before
    lm_eval_tasks._made.cache_clear()
    again = ours(folder, "gsm8k", "?shots=3")
    assert again is not first and again.items(6, "test") == items
    assert again.items(2, "test") == items[:2]
    assert len({item.id for item in items}) == 6
    with pytest.raises(DipscopeError, match="no dev split"):
        again.items(2, "dev")


@pytest.mark.parametrize(
    ("name", "path", "says"),
    [
        ("lm_eval/gsm8", None, "no task 'gsm8'"),
        ("lm_eval/mmlu", None, "no task 'mmlu'"),
        ("lm_eval/gsm8k?temperature=1", None, "no option 'temperature'"),
        ("lm_eval/gsm8k?shots=many", None, "no number"),
        ("lm_eval/made_gsm8k", "absent.yaml", "no file"),
        ("lm_eval/other", "made_gsm8k.yaml", "defines the task 'made_gsm8k'"),
    ],
)
def test_what_is_wrong_with_a_name_is_one_line(folder, name, path, says):
    with pytest.raises(DipscopeError, match=says) as raised:
        lm_eval_tasks.get(name, None if path is None else str(folder / path))
    assert raised.value.fix


def test_tasks_that_lm_eval_has_are_found_without_loading_their_data():
    benchmark = lm_eval_tasks.get("lm_eval/gsm8k")
    assert benchmark.name == "lm_eval/gsm8k" and benchmark.scorer.startswith("lm_eval/1+lm-eval-")
    with pytest.raises(DipscopeError, match="needs the domain"):
        placeless.check(benchmark, None)


@pytest.mark.parametrize(
    ("query", "more", "says"),
    [
        ("", "repeats: 4", "draws 4 answers"),
        ("", "unsafe_code: true", "runs code"),
        ("", "output_type: loglikelihood_rolling", "loglikelihood_rolling"),
        ("", "metric_list: [{metric: bleu, aggregation: bleu, higher_is_better: true}]", "no mean"),
        ("?filter=none", "", "no filter 'none'"),
        ("?metric=f1", "", "no metric 'f1'"),
    ],
)
def test_a_task_that_cannot_be_measured_says_why(folder, tmp_path, query, more, says):
    data = {"data_files": {s: str(folder / "gsm8k-eval.jsonl") for s in ("train", "test")},
            "cache_dir": str(folder / "cache")}  # fmt: skip
    path = write(tmp_path, "odd", TASKS / "gsm8k/gsm8k.yaml", data, more)
    with pytest.raises(DipscopeError, match=says):
        lm_eval_tasks.get(f"lm_eval/odd{query}", str(path)).items(1, "test")


def test_data_that_are_not_there_are_one_line(tmp_path):
    data = {"data_files": {"test": str(tmp_path / "absent.jsonl"), "train": str(tmp_path / "absent.jsonl")}}
    path = write(tmp_path, "gone", TASKS / "gsm8k/gsm8k.yaml", data)
    with pytest.raises(DipscopeError, match="cannot load the task"):
        lm_eval_tasks.get("lm_eval/gone", str(path)).items(1, "test")


FUNCTION = """
import os

def process_results(doc, results):
    said = results[0]
    if said == "die":
        os._exit(1)
    if said == "write":
        open(doc["target"], "w")
    return {"credit": {"half": 0.5, "more": 2.0}.get(said, float(said == doc["answer"]))}
"""
OWN = """
task: graded
dataset_path: json
dataset_kwargs: %s
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
process_results: !function graded_rule.process_results
metric_list: [{metric: credit, aggregation: mean, higher_is_better: true}]
generation_kwargs: {until: ["\\n"]}
"""


def test_the_functions_of_a_task_score_in_a_process_that_is_sealed_and_replaced(tmp_path):
    row = {"question": "Say yes", "answer": "yes", "target": str(tmp_path / "written")}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
    data = {"data_files": {"test": str(tmp_path / "rows.jsonl")}, "cache_dir": str(tmp_path / "cache")}
    (tmp_path / "graded_rule.py").write_text(FUNCTION)
    (tmp_path / "graded.yaml").write_text(OWN % json.dumps(data))
    benchmark = lm_eval_tasks.get("lm_eval/graded", str(tmp_path / "graded.yaml"))
    items = benchmark.items(5, "test")
    assert len(items) == 2  # a row that stands twice counts twice
    said = ["yes\nmore", "no", "half", "more", "write", "die", "yes"]
    judged = [benchmark.judge(items[0], split(text)) for text in said]
    assert [(one.verdict, one.score) for one in judged] == [
        ("correct", 1), ("wrong", 0), ("wrong", 0.5), ("error", None), ("error", None), ("error", None),
        ("correct", 1),
    ]  # fmt: skip
    assert not (tmp_path / "written").exists()
