"""What holds for variants of any trace: the query stays, and nothing of the thinking passes for an answer."""

import random
from dataclasses import fields

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dipscope.data.shaping import variants
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError
from dipscope.scoring.answers import final_answer
from dipscope.scoring.base import Judgement
from dipscope.scoring.thinking import MARKS, split

# Digits 1 to 4 occur in thinking only, 5 to 9 outside only.
INSIDE = (
    "Wait, ", "So x = 3. ", "\n\n", "\n", "\\boxed{1}", "$\\boxed{2}$", "$$\n\\boxed{3}\n$$", "Answer: 4\n",
    "Let me check that. ", "word " * 30, "- item\n", "Hmm. ", "θ ", "</", "```\ncode\n```\n",
)  # fmt: skip
OUTSIDE = (
    "The sum is ", "$\\boxed{5}$. ", "\\boxed{6}", "$$\n\\boxed{7}\n$$\n", "Answer: 8\n", "\n\n", "\n",
    "words. ", "\\boxed{", "}", "\\boxed{}", "The final answer is 9.",
)  # fmt: skip


@st.composite
def responses(draw):
    opening, closing = draw(st.sampled_from(MARKS))
    thinking = "".join(draw(st.lists(st.sampled_from(INSIDE), max_size=15)))
    answer = "".join(draw(st.lists(st.sampled_from(OUTSIDE), max_size=8)))
    shape = draw(st.sampled_from(["closed", "closed", "closed", "open", "plain", "prompt opened"]))
    return {
        "closed": f"{opening}\n{thinking}\n{closing}\n\n{answer}",
        "open": f"{opening}\n{thinking}",
        "plain": answer,
        "prompt opened": f"{thinking}\n{closing}\n{answer}",
    }[shape]


rows = st.builds(
    Trace, st.just("i"), st.just("q"), st.just("What is it?"), responses(), st.sampled_from(["", "5", "77"]),
    st.just("teacher"), st.just("correct"), st.just("s:1"), st.sampled_from(["", "[]"]), st.just("stop"),
)  # fmt: skip
kinds = st.sampled_from(variants.VARIANTS)


def exact(gold, answer):
    return Judgement.of(gold == answer, answer)


def made(variant, trace, seed):
    try:
        return variants.apply(variant, trace, random.Random(seed), exact)
    except DipscopeError:
        return None


@given(rows, kinds, st.integers(0, 5))
@settings(max_examples=500)
def test_nothing_but_the_response_and_what_follows_from_it_changes(trace, variant, seed):
    changed = made(variant, trace, seed)
    assume(changed is not None)
    kept = {f.name for f in fields(Trace)} - {"response"}
    kept -= {"wrong_answer": {"verdict"}, "truncated": {"verdict", "finish"}}.get(variant, set())
    assert all(getattr(changed, name) == getattr(trace, name) for name in kept)
    assert made(variant, trace, seed) == changed


@given(rows, st.integers(0, 5))
@settings(max_examples=500)
def test_answers_are_what_stands_after_the_thinking(trace, seed):
    whole, final = split(trace.response), final_answer(trace.response)
    for variant in ("no_cot", "answer_only"):
        changed = made(variant, trace, seed)
        if not whole.closed or not whole.answer.strip():
            assert changed is None
            continue
        assert changed.response in whole.answer
        assert not set("1234") & set(changed.response)
        assert final is None or final_answer(changed.response) == final


@given(rows, kinds, st.integers(0, 5))
@settings(max_examples=500)
def test_changed_thinking_leaves_the_answer_alone(trace, variant, seed):
    assume(variant not in ("no_cot", "answer_only"))
    changed = made(variant, trace, seed)
    assume(changed is not None)
    before, after = split(trace.response), split(changed.response)
    if variant == "truncated":
        assert not after.closed and final_answer(changed.response) is None
        assert before.reasoning.startswith(after.reasoning)
    elif variant == "wrong_answer":
        assert after.reasoning == before.reasoning
        assert final_answer(changed.response) not in (trace.gold, final_answer(trace.response))
    else:
        assert (after.answer, after.closed) == (before.answer, before.closed)
    if variant == "shuffled_steps":
        assert sorted("".join(before.reasoning.split())) == sorted("".join(after.reasoning.split()))
