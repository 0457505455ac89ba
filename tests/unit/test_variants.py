"""Variants keep the query and change exactly what they say."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dipscope.data import countdown, variants
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError
from dipscope.scoring.thinking import split

TRACES = countdown.traces(200, 5)
traces = st.sampled_from(TRACES)


def verdict(trace):
    return countdown.verify(countdown.Problem.from_gold(trace.gold), trace.response).verdict


@given(traces, st.integers(0, 1000))
@settings(deadline=None)
def test_queries_match_and_answers_are_as_promised(trace, seed):
    for variant in ("cot", "no_cot", "answer_only", "shuffled_steps", "wrong_answer"):
        made = variants.apply(variant, trace, random.Random(seed))
        assert (made.id, made.query, made.prompt, made.gold) == (
            trace.id,
            trace.query,
            trace.prompt,
            trace.gold,
        )
        wrong = variant == "wrong_answer"
        assert verdict(made) == ("wrong" if wrong else "correct")
        assert made.verdict == ("wrong" if wrong else "correct")
        assert ("<think>" in made.response) == (variant in ("cot", "shuffled_steps", "wrong_answer"))


@given(traces)
@settings(deadline=None)
def test_summary_goes_with_no_cot_and_not_with_answer_only(trace):
    kept = variants.apply("no_cot", trace, random.Random(0)).response
    bare = variants.apply("answer_only", trace, random.Random(0)).response
    assert kept.startswith("Start with") and kept.endswith("\n" + bare)
    assert bare.startswith("Answer: ") and "\n" not in bare


@given(traces, st.integers(0, 1000))
@settings(deadline=None)
def test_shuffling_keeps_the_multiset_of_steps_and_the_answer(trace, seed):
    before = split(trace.response)
    after = split(variants.apply("shuffled_steps", trace, random.Random(seed)).response)
    assert sorted(after.reasoning.split("\n")) == sorted(before.reasoning.split("\n"))
    assert after.answer == before.answer


def test_shuffling_changes_the_order_of_most_traces():
    moved = [variants.apply("shuffled_steps", t, random.Random(t.id)).response != t.response for t in TRACES]
    assert sum(moved) > 0.75 * len(moved)


@given(traces, st.integers(0, 1000))
@settings(deadline=None)
def test_wrong_answer_keeps_the_thinking(trace, seed):
    made = variants.apply("wrong_answer", trace, random.Random(seed))
    assert split(made.response).reasoning == split(trace.response).reasoning


def test_a_foreign_trace():
    foreign = Trace("r1", "q1", "What is 2 + 3?", "<think>\n2 + 3 = 5\n</think>\n\nThe sum is 5.\n\\boxed{5}")
    bare = variants.apply("answer_only", foreign, random.Random(0))
    assert bare.response == "\\boxed{5}"
    assert variants.apply("no_cot", foreign, random.Random(0)).response == "The sum is 5.\n\\boxed{5}"
    with pytest.raises(DipscopeError, match="wrong_answer"):
        variants.apply("wrong_answer", foreign, random.Random(0))
    with pytest.raises(DipscopeError, match="no closed thinking block"):
        variants.apply("shuffled_steps", replace(foreign, response="5"), random.Random(0))
    with pytest.raises(DipscopeError, match="no answer"):
        variants.apply("no_cot", replace(foreign, response="<think>\n2 + 3"), random.Random(0))
