"""The measuring loop with a scripted engine: what is asked, what is kept, what is asked again."""

from dataclasses import dataclass, field

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dipscope import measure as measuring
from dipscope import records
from dipscope.benchmarks import registry
from dipscope.engine.base import Completion, Scored
from dipscope.scoring.base import MISSING, Item, Judgement

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
    broken: tuple[str, ...] = ()

    def items(self, n, split):
        words = ("one", "two", "three")[:n]
        return [Item(w, f"say {w}", w, options=(w, *(o for o in words if o != w))) for w in words]

    def judge(self, item, response):
        if item.id in self.broken:
            raise LookupError(f"no rule for {item.id}")
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
    broken: bool = False  # every second completion fails
    likes: float = -0.5

    def generate(self, requests):
        for n, request in enumerate(requests):
            if self.fail_after is not None and n == self.fail_after:
                raise KeyboardInterrupt
            self.asked.append(request.key)
            if self.broken and n % 2:
                yield Completion(request.key, (), "error")
                continue
            yield Completion(request.key, (2, 8, 3, request.prompt_ids[-1]), "stop")

    def score(self, requests):
        for request in requests:
            liked = request.continuation_ids == request.prompt_ids[-1:]
            yield Scored(request.key, (self.likes if liked else -2.0,))


@pytest.fixture
def door(tmp_path, tokenizer, monkeypatch):
    benchmark = Echo()
    monkeypatch.setattr(registry, "get", lambda name, protocol, path: benchmark)
    option = {
        "name": benchmark.name, "items": 3, "samples": 2, "max_tokens": 8, "temperature": 1.0, "top_p": 1.0,
        "top_k": 0, "seed": 0, "split": "test", "likelihood": True,
    }  # fmt: skip

    def measure(engine, **changed):
        settings = [{**option, **changed}]
        shards, _, measure.errors = measuring.measure(
            engine, tokenizer, "c0", settings, tmp_path, lambda *_: None
        )
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


@pytest.mark.parametrize("likes", [float("nan"), float("inf"), float("-inf")])
def test_a_likelihood_that_is_no_number_is_an_error_and_asked_again(door, likes):
    whole = door(Scripted(), seed=1).filter(probe="likelihood")
    door.benchmark.scorer = "echo@2"  # so that likelihoods are asked once more
    table = door(Scripted(likes=likes), seed=1).filter(probe="likelihood")
    assert set(table["verdict"]) == {"error"}
    assert table["score"].to_list() == table["margin"].to_list() == [None] * 3
    assert door.errors == {("fake/echo", "a log-likelihood is not finite"): 3}
    again = door(Scripted(), seed=1).filter(probe="likelihood")
    assert again.drop("scorer").equals(whole.drop("scorer"))
    assert door.errors == {}


def test_a_scorer_that_raises_costs_its_record_and_is_asked_again_without_generating(door):
    door.benchmark.broken = ("two",)
    first = door(Scripted())
    assert first.filter(verdict="error")["item"].to_list() == ["two"] * 2
    assert set(first.filter(probe="generate", verdict="error")["finish"]) == {"stop"}
    ((benchmark, reason), count), *others = door.errors.items()
    assert (benchmark, count, others) == ("fake/echo", 2, [])
    assert reason.startswith("LookupError: no rule for two, in test_measure.py:")
    engine = Scripted()
    assert door(engine).equals(first)  # the same error again: nothing changes
    assert sum(door.errors.values()) == 2
    door.benchmark.broken = ()
    healed = door(engine)
    assert (engine.asked, door.errors) == ([], {})
    assert set(healed["verdict"]) == {"correct"}
    assert healed.height == first.height


def test_a_completion_that_failed_is_generated_again(door):
    first = door(Scripted(broken=True))
    assert len(first.filter(verdict="error")) == 3
    assert door.errors == {("fake/echo", "the engine gave no completion"): 3}
    engine = Scripted()
    healed = door(engine)
    assert len(engine.asked) == 3
    assert set(healed["verdict"]) == {"correct"}
    assert len(healed) == 3 * 2 + 3


def test_what_arrived_before_an_interruption_may_be_lost_but_is_never_wrong(door):
    whole = door(Scripted(), seed=1)
    with pytest.raises(KeyboardInterrupt):
        door(Scripted(fail_after=3), seed=2)
    assert len(door(Scripted(), seed=2)) == len(whole)
