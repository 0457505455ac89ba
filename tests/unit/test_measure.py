"""The measuring loop with a scripted engine: what is asked, what is kept, what is asked again."""

from dataclasses import dataclass, field

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dipscope import measure as measuring
from dipscope import records
from dipscope.benchmarks import registry
from dipscope.benchmarks.base import MISSING, Item, Judgement
from dipscope.engine.base import Completion, Scored

WORDS = ["<unk>", "<end>", "<think>", "</think>", "say", "one", "two", "three", "hm"]
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.fixture
def tokenizer():
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<end>")
    made.chat_template = TEMPLATE
    return made


@dataclass
class Echo:
    """A benchmark whose right answer is in the prompt; `rule` stands for the version of its scorer."""

    name: str = "fake/echo"
    domain: str = "ood_general"
    scorer: str = "echo@1"
    max_tokens: int = 8
    strict: bool = False

    def items(self, n, split):
        words = ("one", "two", "three")[:n]
        return [Item(w, f"say {w}", w, options=(w, *(o for o in words if o != w))) for w in words]

    def judge(self, item, response):
        if not response.answer.strip():
            return MISSING
        right = response.answer.strip() == item.gold and not (self.strict and response.reasoning)
        return Judgement.of(right, response.answer.strip())


@dataclass
class Scripted:
    """An engine that repeats the last word of the prompt, after some thought."""

    name: str = "scripted/1"
    asked: list[str] = field(default_factory=list)
    fail_after: int | None = None

    def generate(self, requests):
        for n, request in enumerate(requests):
            if self.fail_after is not None and n == self.fail_after:
                raise KeyboardInterrupt
            self.asked.append(request.key)
            yield Completion(request.key, (2, 8, 3, request.prompt_ids[-1]), "stop")

    def score(self, requests):
        for request in requests:
            liked = request.continuation_ids == request.prompt_ids[-1:]
            yield Scored(request.key, (-0.5 if liked else -2.0,))


@pytest.fixture
def door(tmp_path, tokenizer, monkeypatch):
    benchmark = Echo()
    monkeypatch.setattr(registry, "resolve", lambda names: [benchmark])
    option = {
        "name": benchmark.name, "items": 3, "samples": 2, "max_tokens": 8, "temperature": 1.0, "top_p": 1.0,
        "top_k": 0, "seed": 0, "split": "test", "likelihood": True,
    }  # fmt: skip

    def measure(engine, **changed):
        settings = [{**option, **changed}]
        shards, _ = measuring.measure(engine, tokenizer, "c0", settings, tmp_path, lambda *_: None)
        table = records.read(tmp_path / s for s in shards)
        return records.canonical(measuring.wanted_rows(table, measuring.tasks(settings, engine.name)))

    measure.benchmark = benchmark
    return measure


def test_every_sample_and_every_likelihood_becomes_one_record(door):
    table = door(Scripted())
    assert len(table) == 3 * 2 + 3
    assert set(table["verdict"]) == {"correct"}
    generated = table.filter(probe="generate")
    assert set(generated["reasoning"]) == {"hm"} or set(generated["reasoning"]) == {" hm "}
    assert set(generated["n_tokens"]) == {4}
    assert set(generated["n_reasoning_tokens"]) == {2}
    assert table.filter(probe="likelihood")["margin"].to_list() == [1.5] * 3


def test_nothing_is_generated_twice(door):
    first = door(Scripted())
    again = Scripted()
    assert door(again).equals(first)
    assert again.asked == []


def test_more_items_only_fill_the_gap(door):
    door(Scripted(), items=2)
    engine = Scripted()
    door(engine, items=3)
    assert len(engine.asked) == 2
    assert all("three" in key for key in engine.asked)


def test_other_sampling_is_another_measurement(door):
    door(Scripted())
    engine = Scripted()
    door(engine, temperature=0.5)
    assert len(engine.asked) == 6


def test_a_new_scoring_rule_judges_again_without_generating(door):
    door(Scripted())
    door.benchmark.scorer, door.benchmark.strict = "echo@2", True
    engine = Scripted()
    table = door(engine)
    assert engine.asked == []
    assert set(table.filter(probe="generate")["verdict"]) == {"wrong"}
    assert set(table["scorer"]) == {"echo@2"}


def test_a_damaged_shard_costs_its_records_and_no_others(door, tmp_path):
    door(Scripted(), items=2)
    whole = door(Scripted())
    victim = max(records.shards(tmp_path), key=lambda p: "generate" in str(p) and p.stat().st_mtime_ns)
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    engine = Scripted()
    assert door(engine).equals(whole)
    assert len(engine.asked) == 2


def test_what_arrived_before_an_interruption_may_be_lost_but_is_never_wrong(door):
    whole = door(Scripted(), seed=1)
    with pytest.raises(KeyboardInterrupt):
        door(Scripted(fail_after=3), seed=2)
    assert len(door(Scripted(), seed=2)) == len(whole)
