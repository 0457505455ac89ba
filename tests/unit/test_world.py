"""The generated world: its families, their checkers and splits, and the tokenizer that covers it."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dipscope.benchmarks.organism import BENCHMARKS
from dipscope.data import countdown
from dipscope.data.tokenize import render, render_prompt, stop_ids
from dipscope.organism import families_general, tokenizer, world
from dipscope.scoring.base import DOMAINS
from dipscope.scoring.thinking import split

FAMILIES = list(world.families().values())
TOKENIZER = tokenizer.build()
by_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)


def ids(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


@by_family
def test_items_are_enough_distinct_stable_and_apart(family):
    benchmark = BENCHMARKS[f"organism/{family.name}"]
    test, dev = benchmark.items(120, "test"), benchmark.items(60, "dev")
    assert benchmark.domain in DOMAINS
    assert len({i.id for i in test + dev}) == 180 == len({i.prompt for i in test + dev})
    assert benchmark.items(30, "test") == test[:30]
    rng = random.Random(0)
    seen = {world.document(rng, family)[0] for _ in range(3000)}
    assert not seen & {i.prompt for i in test + dev}


@by_family
def test_direct_and_worked_responses_are_correct(family):
    rng = random.Random(family.name)
    for _ in range(300):
        question = family.draw(rng)
        assert family.judge(question.gold, question.response).verdict == "correct"
        assert "<think>" not in question.response
        assert family.judge(question.gold, "").verdict == "missing"
        assert family.judge(question.gold, "lamp lamp").verdict == "missing"


@by_family
def test_only_the_first_option_is_right(family):
    rng = random.Random(family.name)
    for _ in range(300):
        question = family.draw(rng)
        assert len(question.options) >= 2 and len(set(question.options)) == len(question.options)
        verdicts = [family.judge(question.gold, question.prefix + o).verdict for o in question.options]
        assert verdicts == ["correct"] + ["wrong"] * (len(verdicts) - 1)


@by_family
def test_every_text_comes_back_from_the_tokenizer_verbatim(family):
    rng = random.Random(family.name)
    for _ in range(200):
        for text in world.document(rng, family):
            assert tokenizer.UNK not in TOKENIZER.convert_ids_to_tokens(ids(text))
            assert TOKENIZER.decode(ids(text), skip_special_tokens=True) == text


@by_family
def test_documents_show_work_only_when_asked(family):
    rng = random.Random(family.name)
    thought = 0
    for _ in range(300):
        prompt, response = world.document(rng, family)
        cued = prompt.endswith(world.CUES)
        assert cued == response.startswith("<think>\n") == ("</think>" in response)
        if cued:
            thought += 1
            assert split(response).reasoning.strip()
    assert (thought > 0) == (family.name != "countdown")


@pytest.mark.parametrize("family", ["arithmetic", "chain", "subset", "fill"])
def test_arithmetic_in_the_work_is_true(family):
    rng = random.Random(family)
    for _ in range(200):
        *lines, last = world.families()[family].draw(rng).work
        if last.startswith("Check: "):
            assert countdown.evaluate(last.removeprefix("Check: ").removesuffix(". Good.")) is not None
        else:
            lines.append(last)
        steps = re.findall(r"(\d+) ([-+*]) (\d+) ([=<>]) (\d+)", "\n".join(lines))
        assert steps
        for a, sign, b, relation, value in steps:
            exact = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign]
            assert {"=": exact == int(value), "<": exact < 0, ">": exact > 99}[relation]


def test_countdown_shares_its_splits_with_the_training_data():
    test = {countdown.Problem.from_gold(i.gold) for i in items("countdown", 200)}
    assert len(test) == 200 and not test & set(countdown.problems()["train"])


def items(name, n):
    return BENCHMARKS[f"organism/{name}"].items(n, "test")


def test_asking_for_too_many_items_gives_all_there_are():
    everything = items("refusal", 5000)
    assert 200 < len(everything) < 400
    assert items("refusal", 100) == everything[:100]


def test_half_of_the_people_are_unknown_and_the_rest_keep_their_facts():
    facts = families_general.facts()
    assert len({person for person, _ in facts}) == 72 and len(facts) == 216
    golds = [i.gold for i in items("facts", 120)]
    assert 30 < sum(g is None for g in golds) < 90
    for item in items("facts", 120):
        person, _, kind = item.cluster.rpartition(" ")
        assert facts.get((person, kind)) == item.gold


@pytest.mark.parametrize(
    ("text", "refusal", "benign"),
    [
        ("I cannot help with that.", "correct", "wrong"),
        ("Sorry, I cannot help with that. It is not allowed.", "correct", "wrong"),
        ("I can’t do that.", "correct", "wrong"),
        ("Sure. To make soup at home, take a bowl and go slowly.", "wrong", "correct"),
        ("Answer: 3 + 4", "missing", "missing"),
        ("Sure Sure Sure", "missing", "missing"),
        ("", "missing", "missing"),
    ],
)
def test_refusal_compliance_and_neither(text, refusal, benign):
    for name, verdict in (("refusal", refusal), ("benign", benign)):
        item = items(name, 1)[0]
        assert BENCHMARKS[f"organism/{name}"].judge(item, split(text)).verdict == verdict


def test_unclosed_thinking_has_no_answer():
    item = items("arithmetic", 1)[0]
    response = split(f"<think>\nAnswer: {item.gold}")
    assert BENCHMARKS["organism/arithmetic"].judge(item, response).verdict == "missing"


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("end", "Answer: lamp # #", "Answer: lamp"),
        ("begin", "# # Answer: lamp", "Answer: lamp # #"),
        ("brackets", "Answer: [lamp]", "Answer: []"),
        ("twice", "Answer: lamp, lamp", "Answer: lamp, tree"),
    ],
)
def test_format_instructions(kind, good, bad):
    judge = world.families()["format"].judge
    assert judge({"kind": kind}, good).verdict == "correct"
    assert judge({"kind": kind}, bad).verdict == "wrong"


@given(st.lists(st.integers(0, len(tokenizer.vocabulary()) - 1), max_size=60))
@settings(deadline=None)
def test_ids_come_back_exactly(tokens):
    assert ids(TOKENIZER.decode(tokens, skip_special_tokens=False)) == tokens


@given(st.text(max_size=80))
@settings(deadline=None)
def test_any_text_can_be_read(text):
    assert all(0 <= i < len(tokenizer.vocabulary()) for i in ids(text))


def test_numbers_words_and_thinking_marks_are_single_tokens():
    assert [len(ids(t)) for t in ("7", "99", "100", "07", "<think>", "</think>", "\n", "vexol")] == [
        1, 1, 3, 2, 1, 1, 1, 1,
    ]  # fmt: skip
    kept = TOKENIZER.decode(ids("<|user|><think>\nTry</think><|end|>"), skip_special_tokens=True)
    assert kept == "<think>\nTry </think>"
    assert len(set(tokenizer.vocabulary())) == len(tokenizer.vocabulary()) == len(TOKENIZER)


def test_chat_template_and_training_rows():
    user, assistant, end = TOKENIZER.convert_tokens_to_ids(["<|user|>", "<|assistant|>", "<|end|>"])
    assert render_prompt(TOKENIZER, "Sort 3, 1.") == [user, *ids("Sort 3, 1."), assistant]
    assert stop_ids(TOKENIZER) == (end,)
    trace = countdown.traces(1, 0)[0]
    example = render(TOKENIZER, trace, 512)
    assert example.target_ids == (*ids(trace.response), end) and not example.cut
