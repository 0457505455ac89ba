"""Sampling a teacher: what is asked, what is kept, what survives an interruption, and what it may cost."""

import json
import random
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dipscope.bases import from_command_line
from dipscope.data.teaching.cost import Budget, Prices
from dipscope.data.teaching.questions import SUFFIX, with_suffix
from dipscope.data.teaching.teacher import Options, Sampler, sample
from dipscope.data.teaching.writers import EngineWriter, open_writer
from dipscope.data.traces import SCHEMA, Trace, query_id
from dipscope.engine.base import Completion
from dipscope.engine.text import Ask, Draft, TextSampling
from dipscope.errors import DipscopeError
from dipscope.scoring.base import MISSING, Judgement


@dataclass
class Table:
    """Questions `sum 0`, `sum 1`, …; each stands in two rows, as in a pool of responses."""

    count: int = 5
    gold: str = "1"
    facts: dict = field(default_factory=lambda: {"file": "questions"})

    def stream(self):
        for i in range(self.count):
            asked = f"sum {i}"
            for n in range(2):
                yield Trace(f"{i}-{n}", query_id(asked), asked, "", self.gold, source=f"questions:{i}")


@dataclass
class Scribe:
    """Answers with a box around its seed's last digit; keeps `ahead` asks in flight, serves them shuffled."""

    fails: frozenset = frozenset()  # keys
    interrupt_after: int = 10**9
    counted: bool = True
    ahead: int = 4
    name: str = "scribe"
    asked: list = field(default_factory=list)
    written: int = 0
    used: float = 0.0

    facts = {"kind": "scribe"}  # noqa: RUF012

    def write(self, asks):
        source, held, rng = iter(asks), [], random.Random(0)
        while True:
            fresh = list(islice(source, self.ahead - len(held)))
            self.asked += fresh
            held += fresh
            if not held:
                return
            ask = held.pop(rng.randrange(len(held)))
            self.written += 1
            if self.written > self.interrupt_after:
                raise KeyboardInterrupt
            if ask.key in self.fails:
                yield Draft(ask.key, "", "error", reason="it would not", lost=1)
                continue
            tokens = 1 + ask.seed % ask.sampling.max_tokens
            given_ = sum(len(content) for _, content in ask.messages) if self.counted else None
            finish = "length" if tokens == ask.sampling.max_tokens else "stop"
            text = f"<think>\nhm {ask.seed}\n</think>\n\\boxed{{{ask.seed % 10}}}"
            yield Draft(ask.key, text, finish, tokens if self.counted else None, given_)


class Judges:
    """Equal texts are correct."""

    def judge(self, pairs):
        for gold, answer in pairs:
            yield MISSING if answer is None else Judgement.of(gold == answer, answer)


def rows(pool):
    found = pl.concat([pl.read_parquet(p) for p in pool.glob("part-*.parquet")])
    assert found.schema == pl.Schema(SCHEMA)
    return sorted((Trace(**r) for r in found.iter_rows(named=True)), key=lambda t: t.id)


def test_the_paper_is_the_default():
    options = Options()
    assert options.samples == 32
    assert options.sampling == TextSampling(0.6, 0.95, 20, 0.0, 16384)


def test_every_question_is_asked_n_times_with_its_own_seeds(tmp_path):
    scribe = Scribe()
    result = sample(Table(), tmp_path / "p", scribe, Options(samples=3), Judges())
    found = rows(tmp_path / "p")
    queries = [query_id(f"sum {i}") for i in range(5)]
    assert {t.id for t in found} == {f"{q}-{n}" for q in queries for n in range(3)}
    assert len(scribe.asked) == 15 == len({a.seed for a in scribe.asked})
    assert all(0 <= a.seed < 2**53 for a in scribe.asked)
    assert {a.messages for a in scribe.asked} == {(("user", f"sum {i}\n{SUFFIX}"),) for i in range(5)}
    # round by round: a pool that is stopped early has as many responses for every question
    assert [a.key for a in scribe.asked[:6]] == [f"{q}-0" for q in queries] + [f"{queries[0]}-1"]
    one = found[0]
    assert one.query in queries and one.id.startswith(one.query)
    assert one.prompt.endswith(f"\n{SUFFIX}") and one.gold == "1" and one.origin == "scribe"
    assert one.source.startswith("questions:") and one.finish == "stop"
    assert result["present"] == result["wanted"] == 15 and result["stopped"] == ""


def test_responses_are_judged_by_their_final_answer(tmp_path):
    result = sample(Table(40), tmp_path / "p", Scribe(), Options(samples=2), Judges())
    found = rows(tmp_path / "p")
    for trace in found:
        digit = trace.response.partition("\\boxed{")[2][0]
        assert trace.verdict == ("correct" if digit == "1" else "wrong")
    share = sum(t.verdict == "correct" for t in found) / len(found)
    assert 0 < share < 1 and result["verified"] == share


def test_without_gold_there_is_no_verdict(tmp_path):
    result = sample(Table(gold=""), tmp_path / "p", Scribe(), Options(samples=1), Judges())
    assert {t.verdict for t in rows(tmp_path / "p")} == {""} and result["verified"] is None


def test_another_seed_draws_otherwise(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        sample(Table(), tmp_path / name, Scribe(), Options(samples=2, seed=seed), None)
    a, b, c = (rows(tmp_path / name) for name in "abc")
    assert a == b
    assert not {t.response for t in a} & {t.response for t in c}


@settings(max_examples=20)
@given(st.integers(0, 14), st.integers(1, 6), st.integers(1, 6))
def test_an_interrupted_pool_becomes_the_same_pool(tmp_path_factory, after, flush_rows, ahead):
    base = tmp_path_factory.mktemp("pools")
    options = Options(samples=3, flush_rows=flush_rows)
    sample(Table(), base / "whole", Scribe(), options, Judges())
    scribe = Scribe(interrupt_after=after, ahead=ahead)
    with pytest.raises(KeyboardInterrupt):
        sample(Table(), base / "cut", scribe, options, Judges())
    again = Scribe(ahead=ahead)
    result = sample(Table(), base / "cut", again, options, Judges())
    assert rows(base / "cut") == rows(base / "whole")
    assert len(again.asked) == result["new"] == 15 - after  # what had arrived was kept
    whole, cut = ((base / name / "provenance.json").read_bytes() for name in ("whole", "cut"))
    assert whole == cut


def test_a_finished_pool_asks_nothing(tmp_path):
    sample(Table(), tmp_path, Scribe(), Options(samples=2), None)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    again = Scribe()
    assert sample(Table(), tmp_path, again, Options(samples=2), None)["new"] == 0
    assert not again.asked
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_more_samples_and_more_questions_can_be_added(tmp_path):
    sample(Table(3), tmp_path, Scribe(), Options(samples=2), None)
    scribe = Scribe()
    result = sample(Table(5), tmp_path, scribe, Options(samples=4), None)
    assert len(scribe.asked) == 20 - 6 and result["present"] == 20
    fewer = sample(Table(5), tmp_path, Scribe(), Options(samples=4, rows=2), None)
    assert fewer["wanted"] == fewer["present"] == 8


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sampling": TextSampling(temperature=0.7)}, "sampling"),
        ({"suffix": "Be brief."}, "suffix"),
        ({"seed": 1}, "seed"),
    ],
)
def test_a_pool_that_was_sampled_otherwise_is_refused(tmp_path, change, named):
    sample(Table(), tmp_path, Scribe(), Options(samples=1), None)
    with pytest.raises(DipscopeError, match=f"was sampled with {named} = "):
        sample(Table(), tmp_path, Scribe(), Options(samples=1, **change), None)
    with pytest.raises(DipscopeError, match='was sampled with teacher = "scribe", not "another"'):
        sample(Table(), tmp_path, Scribe(name="another"), Options(samples=1), None)


def test_a_folder_of_something_else_is_refused(tmp_path):
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "part-0.parquet")
    with pytest.raises(DipscopeError, match="unknown origin"):
        sample(Table(), tmp_path, Scribe(), Options(), None)


def test_two_at_once_are_refused(tmp_path):
    with (
        Sampler(Table(), tmp_path, Scribe(), Options(samples=1), None),
        pytest.raises(DipscopeError, match="another dipscope is sampling") as caught,
    ):
        sample(Table(), tmp_path, Scribe(), Options(samples=1), None)
    assert caught.value.exit_code == 1
    assert sample(Table(), tmp_path, Scribe(), Options(samples=1), None)["present"] == 5


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_shard_is_set_aside_and_only_its_rows_are_asked_again(tmp_path, harm):
    options = Options(samples=3, flush_rows=4)
    sample(Table(), tmp_path, Scribe(), options, Judges())
    whole = rows(tmp_path)
    shards = sorted(tmp_path.glob("part-*.parquet"))
    lost = pl.read_parquet(shards[0]).height
    data = shards[0].read_bytes()
    changed = {"flip": data[:50] + bytes([data[50] ^ 1]) + data[51:], "cut": data[:-9], "empty": b""}[harm]
    shards[0].write_bytes(changed)
    (tmp_path / ".part-x.parquet.77.tmp").write_bytes(b"half a shard")
    again = Scribe()
    result = sample(Table(), tmp_path, again, options, Judges())
    assert len(again.asked) == lost and rows(tmp_path) == whole
    assert result["notes"] == [f"{shards[0].name}: damaged, set aside; its responses are asked for again"]
    assert shards[0].with_suffix(".damaged").read_bytes() == changed
    assert not list(tmp_path.glob(".*.tmp"))


def test_errors_are_counted_kept_out_and_asked_again(tmp_path):
    keys = {f"{query_id('sum 1')}-0", f"{query_id('sum 3')}-1"}
    result = sample(Table(), tmp_path, Scribe(fails=frozenset(keys)), Options(samples=2), None)
    assert result["errors"] == {"it would not": 2} and result["present"] == 8
    assert not keys & {t.id for t in rows(tmp_path)}
    assert json.loads((tmp_path / "provenance.json").read_text())["missing"] == 2
    again = Scribe()
    assert sample(Table(), tmp_path, again, Options(samples=2), None)["present"] == 10
    assert {a.key for a in again.asked} == keys


def test_what_fails_twice_is_counted_once(tmp_path):
    scribe = Scribe(fails=frozenset({f"{query_id('sum 0')}-0"}))
    with Sampler(Table(), tmp_path, scribe, Options(samples=1, probe=2), None) as sampler:
        sampler.estimate()
        assert sampler.run()["errors"] == {"it would not": 1}
        assert len(scribe.asked) == 6
        scribe.fails = frozenset()
        assert sampler.run()["errors"] == {}


def test_responses_survive_a_verifier_that_fails(tmp_path):
    class Broken:
        def judge(self, pairs):
            raise DipscopeError("no worker starts", fault=True)
            yield

    with pytest.raises(DipscopeError, match="no worker starts"):
        sample(Table(), tmp_path, Scribe(), Options(samples=2), Broken())
    assert len(rows(tmp_path)) == 10 and {t.verdict for t in rows(tmp_path)} == {""}


def test_shards_are_written_as_responses_arrive(tmp_path):
    seen = []

    def report(done, total, note):
        seen.append((done, total, len(list(tmp_path.glob("part-*.parquet")))))

    sample(Table(), tmp_path, Scribe(), Options(samples=4, flush_rows=5), Judges(), report)
    assert [s[0] for s in seen] == list(range(1, 21)) and {s[1] for s in seen} == {20}
    assert [s[2] for s in seen] == [(i + 1) // 5 for i in range(20)]
    sample(Table(), tmp_path / "slow", Scribe(), Options(samples=1, flush_seconds=0.0), None)
    assert len(list((tmp_path / "slow").glob("part-*.parquet"))) == 5


def test_the_note_says_the_verified_share(tmp_path):
    notes = []
    key = frozenset({f"{query_id('sum 1')}-0"})
    sample(
        Table(), tmp_path, Scribe(fails=key), Options(samples=4, flush_rows=1), Judges(),
        lambda done, total, note: notes.append(note),
    )  # fmt: skip
    right = sum(t.verdict == "correct" for t in rows(tmp_path))
    assert notes[-1] == f"{right / 19:.0%} verified, 1 errors"


def test_provenance_says_how_it_was_drawn(tmp_path):
    sample(Table(), tmp_path, Scribe(), Options(samples=2, seed=7), Judges())
    known = json.loads((tmp_path / "provenance.json").read_text())
    assert known["teacher"] == "scribe" and known["model"] == {"kind": "scribe"} and known["seed"] == 7
    assert known["sampling"] == {
        "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.0, "max_tokens": 16384
    }  # fmt: skip
    assert known["source"] == {"file": "questions"} and known["missing"] == 0
    assert known["counts"]["responses"] == 10 and known["counts"]["tokens"] > 0
    assert sum(known["counts"]["verdicts"].values()) == 10


def test_a_question_without_text_or_none_at_all(tmp_path):
    class Empty(Table):
        def stream(self):
            yield Trace("a", "a", "  ", "")

    with pytest.raises(DipscopeError, match="no questions"):
        sample(Empty(), tmp_path, Scribe(), Options(), None)


def test_a_question_with_turns_before_it(tmp_path):
    class Talk(Table):
        def stream(self):
            before = json.dumps([{"role": "system", "content": "Be kind."}])
            yield Trace("a", "a", "sum \ud800", "", context=before)

    scribe = Scribe()
    sample(Talk(), tmp_path, scribe, Options(samples=1, suffix=""), None)
    assert scribe.asked[0].messages == (("system", "Be kind."), ("user", "sum ?"))
    assert rows(tmp_path)[0].context == '[{"role": "system", "content": "Be kind."}]'


def test_the_request_for_a_box_is_put_once():
    assert with_suffix("What is 1+1?\n", "Box it.") == "What is 1+1?\nBox it."
    assert with_suffix("Put 1+1 within \\boxed{}.", "Box it.") == "Put 1+1 within \\boxed{}."
    assert with_suffix("What is 1+1? ", "") == "What is 1+1? "


# --- cost


def spent(pool, prices):
    tokens = json.loads((pool / "provenance.json").read_text())["counts"]
    return prices.of(tokens["prompt_tokens"], tokens["tokens"])


@settings(max_examples=25)
@given(st.floats(0.0, 0.3), st.integers(1, 8), st.integers(0, 1000))
def test_the_cost_limit_is_never_passed(tmp_path_factory, limit, ahead, seed):
    pool = tmp_path_factory.mktemp("pool")
    prices = Prices(prompt=10.0, response=1000.0)
    options = Options(
        samples=8,
        seed=seed,
        sampling=TextSampling(max_tokens=20),
        prices=prices,
        max_cost=limit,
        flush_rows=3,
    )
    result = sample(Table(), pool, Scribe(ahead=ahead), options, None)
    assert spent(pool, prices) <= limit
    worst = prices.of(200, 20)
    assert (result["stopped"] == "max-cost") == (result["present"] < 40)
    if result["stopped"]:  # and it is used: not even one more might have fitted
        assert result["spent"] + worst > limit
    more = sample(Table(), pool, Scribe(ahead=ahead), Options(**vars(options) | {"max_cost": 10.0}), None)
    assert more["present"] == 40 and more["stopped"] == ""


def test_what_was_lost_on_the_way_counts_as_charged():
    budget = Budget(Prices(response=1e6), 100.0, 0.0)
    ask = Ask("a", (("user", "x"),), TextSampling(max_tokens=30), 0)
    assert budget.admit(ask)
    budget.settle(Draft("a", "", "error", reason="time-out", lost=2))
    assert budget.spent == 60.0
    assert budget.admit(ask) and not budget.admit(ask)


def test_a_cost_limit_needs_prices_and_usage(tmp_path):
    with pytest.raises(DipscopeError, match="needs prices"):
        sample(Table(), tmp_path, Scribe(), Options(max_cost=1.0), None)
    options = Options(samples=1, prices=Prices(1, 1), max_cost=1.0)
    with pytest.raises(DipscopeError, match="does not report what it used"):
        sample(Table(), tmp_path, Scribe(counted=False), options, None)
    assert len(rows(tmp_path)) == 1  # the one that showed it is kept


def test_an_estimate_from_a_given_length_asks_nothing(tmp_path):
    scribe = Scribe()
    options = Options(samples=4, mean_tokens=500.0, rate=100.0, prices=Prices(1.0, 10.0))
    with Sampler(Table(), tmp_path, scribe, options, None) as sampler:
        made = sampler.estimate()
    assert not scribe.asked
    assert (made.requests, made.tokens, made.seconds) == (20, 10_000, 100.0)
    assert made.prompt_tokens == round(len(f"sum 0\n{SUFFIX}") / 4 * 20)
    assert made.cost == pytest.approx((made.prompt_tokens + 10 * 10_000) / 1e6)
    assert made.lines()[1] == "Tokens: about 10,000 (500 a response, given)."


def test_an_estimate_measures_on_a_few_that_are_kept(tmp_path):
    scribe, options = Scribe(), Options(samples=4, probe=3, prices=Prices(1.0, 10.0))
    with Sampler(Table(30), tmp_path, scribe, options, Judges()) as sampler:
        made = sampler.estimate()
        lengths = [1 + a.seed % 16384 for a in scribe.asked]
        assert len(lengths) == 3 and made.requests == 117
        assert made.mean_tokens == pytest.approx(sum(lengths) / 3)
        assert made.tokens == round(117 * sum(lengths) / 3)
        assert made.rate > 0 and made.seconds == made.tokens / made.rate
        asked = {a.messages[0][1].split("\n")[0] for a in scribe.asked}
        assert asked == {"sum 0", "sum 10", "sum 20"}  # from all over the source
        sampler.run()
    assert len({a.key for a in scribe.asked}) == len(scribe.asked) == 120


def test_the_estimate_of_a_finished_pool(tmp_path):
    sample(Table(), tmp_path, Scribe(), Options(samples=1), None)
    scribe = Scribe()
    with Sampler(Table(), tmp_path, scribe, Options(samples=1), None) as sampler:
        assert sampler.estimate().lines() == ["Nothing is missing."]
    assert not scribe.asked


def test_a_teacher_that_does_not_count(tmp_path):
    with Sampler(Table(), tmp_path, Scribe(counted=False), Options(samples=2), None) as sampler:
        made = sampler.estimate()
    assert made.tokens is None and made.rate is None and "unknown" in made.lines()[1]


# --- writers


class Letters:
    """A tokenizer whose tokens are characters; 0 ends a turn."""

    chat_template = "{{ messages }}"
    eos_token_id = 0
    all_special_ids = (0,)
    added_tokens_decoder: ClassVar[dict] = {}

    def apply_chat_template(self, messages, tokenize=True, **options):
        text = "".join(m["content"] for m in messages)
        return [ord(c) for c in text] if tokenize else text

    def decode(self, ids, skip_special_tokens=False):
        return "".join(map(chr, ids))


class Engine:
    """Answers with as many letters as it may, or fails."""

    name = "engine/test"

    def __init__(self):
        self.seen = []

    def generate(self, requests):
        self.seen += requests
        for r in requests:
            if r.seed == 13:
                yield Completion(r.key, (120,), "error")
            else:
                yield Completion(r.key, (120,) * min(r.sampling.max_tokens, 5), "length")


def ask(key, prompt, seed=1, **sampling):
    return Ask(key, (("user", prompt),), TextSampling(**sampling), seed)


def test_an_engine_writes():
    engine = Engine()
    writer = EngineWriter(engine, Letters(), "tiny", context=12)
    asks_ = [ask("a", "hello"), ask("b", "hello wor"), ask("c", "hello world!"), ask("d", "hi", 13)]
    drafts = {d.key: d for d in writer.write(asks_)}
    assert drafts["a"] == Draft("a", "xxxxx", "length", 5, 5)
    assert drafts["b"] == Draft("b", "xxx", "length", 3, 9)  # no further than the model's context
    assert drafts["c"].finish == "error" and "fills the model's context" in drafts["c"].reason
    assert drafts["d"].finish == "error" and drafts["d"].text == ""
    request = engine.seen[0]
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.top_k) == (0.6, 0.95, 20)
    assert request.seed == 1 and request.stop_ids == (0,)


def test_an_engine_whose_template_opens_the_thinking():
    class Opening(Letters):
        def apply_chat_template(self, messages, add_generation_prompt=False, tokenize=True, **options):
            text = super().apply_chat_template(messages, tokenize=False)
            text += "<think>\n" if add_generation_prompt else ""
            return [ord(c) for c in text] if tokenize else text

    (draft,) = EngineWriter(Engine(), Opening(), "tiny").write([ask("a", "hello")])
    assert draft.text == "<think>\nxxxxx"


def test_an_engine_has_no_min_p():
    with pytest.raises(DipscopeError, match="samples without min_p"):
        open_writer(["organism:S"], from_command_line, min_p=0.1)
    with pytest.raises(DipscopeError, match="samples without min_p"):
        list(EngineWriter(Engine(), Letters(), "tiny").write([ask("a", "x", min_p=0.1)]))


@pytest.mark.parametrize(
    ("teachers", "said"),
    [
        (["nobody"], "this names no model"),
        (["organism:XXL"], "no organism of size 'XXL'"),
        (["organism:S", "organism:XS"], "only servers can be several"),
        (["http://127.0.0.1:1/v1", "organism:S"], "only servers can be several"),
        (["http://127.0.0.1:1/v1"], "no server says which model it has"),
    ],
)
def test_teachers_that_are_none(teachers, said):
    with pytest.raises(DipscopeError, match=said):
        open_writer(teachers, from_command_line)


def test_the_organism_writes_the_same_alone_and_in_company():
    writer = open_writer(["organism:XS"], from_command_line)
    assert writer.name == "organism:XS" and writer.facts["engine"].startswith("local/")
    asks_ = [ask(str(i), f"What is {i} + 2?", seed=i, max_tokens=20) for i in range(6)]
    together = {d.key: d for d in writer.write(asks_)}
    alone = {a.key: d for a in asks_ for d in writer.write([a])}
    assert together == alone
    assert all(d.finish in ("stop", "length") and d.n_tokens <= 20 for d in alone.values())


def test_a_folder_is_named_without_its_place():
    from dipscope.organism.base import shipped

    assert open_writer([str(shipped("XS"))], from_command_line).name == "XS"
