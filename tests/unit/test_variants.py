"""Variants keep the query and change exactly what they say."""

import gzip
import hashlib
import json
import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dipscope.data import countdown
from dipscope.data.shaping import near_misses, reflection, steps, variants
from dipscope.data.traces import Trace, query_id
from dipscope.errors import DipscopeError
from dipscope.scoring.answers import final_answer
from dipscope.scoring.base import Judgement
from dipscope.scoring.thinking import split

TRACES = countdown.traces(200, 5)
traces = st.sampled_from(TRACES)
ON_THINKING = ("shuffled_steps", "dropped_steps", "truncated", "stripped_keywords", "short_cot")
# Of 600 responses each, as they were when the embedded demo was measured.
DEMO = {
    "cot": "f333a860144513a8",
    "no_cot": "0c0b172c5de47558",
    "answer_only": "f50e515ffc0e25d2",
    "shuffled_steps": "b5d6df1811c13144",
    "wrong_answer": "fad2ba649b9b47a5",
}
LONG = Trace(
    "r1",
    "q1",
    "What is 2 + 3?",
    "<think>\nOkay, the sum of 2 and 3.\n\nWait, is it a product? Let me check that.\n\nNo, a sum:\n\n"
    "$$\n2 + 3 = 5\n$$\n\nAlternatively, count: 3, 4, 5.\n\nHmm. Both give 5.\n\n"
    "So the answer is \\boxed{5}.\n</think>\n\nThe sum is five.\n\n"
    "**Final answer.** Adding gives $2 + 3 = \\boxed{5}$. That is all.",
    "5",
    verdict="correct",
    finish="stop",
)


def verdict(trace):
    return countdown.verify(countdown.Problem.from_gold(trace.gold), trace.response).verdict


def exact(gold, answer):
    return Judgement.of(gold == answer, answer)


def make(variant, trace, seed=0):
    return variants.apply(variant, trace, random.Random(seed), exact)


@given(traces, st.integers(0, 1000))
@settings(deadline=None)
def test_queries_match_and_answers_are_as_promised(trace, seed):
    for variant in variants.VARIANTS:
        made = variants.apply(variant, trace, random.Random(seed))
        assert (made.id, made.query, made.prompt, made.gold) == (
            trace.id,
            trace.query,
            trace.prompt,
            trace.gold,
        )
        expected = {"wrong_answer": "wrong", "truncated": "missing"}.get(variant, "correct")
        assert verdict(made) == made.verdict == expected
        assert ("<think>" in made.response) == (variant not in ("no_cot", "answer_only"))


@pytest.mark.parametrize("variant", DEMO)
def test_the_demo_trains_on_the_same_bytes_as_ever(variant):
    made = [variants.apply(variant, t, random.Random(f"{s}:{t.id}")) for t in TRACES for s in range(3)]
    rows = [(m.id, m.response, m.verdict) for m in made]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == DEMO[variant]


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


def test_an_unclosed_trace_is_refused_by_every_variant_that_changes_it():
    for response in ("<think>\nSo \\boxed{5}.", "<|begin_of_thought|>\nSo \\boxed{5}.\n\nWait."):
        for variant in variants.VARIANTS:
            if variant not in ("cot", "unverified"):
                with pytest.raises(DipscopeError):
                    make(variant, replace(LONG, response=response))


def test_a_long_trace_by_every_variant():
    made = {variant: make(variant, LONG) for variant in variants.VARIANTS}
    head, tail = LONG.response.split("</think>")
    assert made["cot"] == made["unverified"] == LONG
    assert made["no_cot"].response == tail.strip()
    assert made["answer_only"].response == "Adding gives $2 + 3 = \\boxed{5}$."
    changed = LONG.response.rpartition("\\boxed{5}")
    wrong = made["wrong_answer"].response
    assert wrong.startswith(changed[0]) and wrong.endswith(changed[2]) and final_answer(wrong) != "5"
    for variant in ("shuffled_steps", "dropped_steps", "stripped_keywords", "short_cot"):
        assert made[variant].response.startswith("<think>\n")
        assert made[variant].response.endswith("\n</think>" + tail)
        assert made[variant].verdict == "correct"
    cut = made["truncated"]
    assert head.startswith(cut.response) and (cut.finish, cut.verdict) == ("length", "missing")
    assert made["stripped_keywords"].response == (
        "<think>\nOkay, the sum of 2 and 3.\n\nIs it a product?\n\nNo, a sum:\n\n$$\n2 + 3 = 5\n$$\n\n"
        "Count: 3, 4, 5.\n\nBoth give 5.\n\nSo the answer is \\boxed{5}.\n</think>" + tail
    )
    found = steps.segment(split(LONG.response).reasoning)
    assert made["short_cot"].response == "<think>" + found[0] + "".join(found[-2:]) + "</think>" + tail


@pytest.mark.parametrize(
    "answer, bare",
    [
        ("So\n\n$$\nx = \\boxed{1, \\frac{2}{3}}\n$$\n\nas said.", "$$\nx = \\boxed{1, \\frac{2}{3}}\n$$"),
        ("It is 3. Thus the sum is \\( \\boxed{16} \\). Done.", "Thus the sum is \\( \\boxed{16} \\)."),
        ("First \\boxed{2}.\nThen \\boxed{3}.\nBye.", "Then \\boxed{3}."),
        ("\\boxed{Mr. Smith} it is", "\\boxed{Mr. Smith} it is"),
        ("\\boxed{\n1\n}\nend", "\\boxed{\n1\n}"),
        ("Yes. $\\boxed{1}$ and $\\boxed{2}$. No.", "$\\boxed{1}$ and $\\boxed{2}$."),
        ("Words.\nThe final answer is 42.\nBye.", "The final answer is 42."),
        ("Words.\nAnswer:\n42", "Answer:\n42"),
        ("No mark at all.\nJust 42", "Just 42"),
    ],
)
def test_answer_only_keeps_what_states_the_answer(answer, bare):
    trace = replace(LONG, response=f"<think>\n\\boxed{{0}}\n</think>\n\n{answer}")
    made = make("answer_only", trace).response
    assert made == bare
    assert final_answer(made) == final_answer(trace.response)


def test_dropping_takes_the_share_it_says_and_never_all():
    for number in (2, 3, 7, 10, 33):
        thinking = "\n\n".join(f"Step {n} is written here." for n in range(number))
        trace = replace(LONG, response=f"<think>\n{thinking}\n</think>\n\n\\boxed{{5}}")
        for seed in range(10):
            kept = steps.segment(split(make("dropped_steps", trace, seed).response).reasoning)
            numbers = [int(re.findall(r"\d+", step)[0]) for step in kept]
            assert number - len(kept) == max(1, round(variants.DROPPED * number))
            assert numbers == sorted(numbers)
    with pytest.raises(DipscopeError, match="single step"):
        make("dropped_steps", replace(LONG, response="<think>\nOne.\n</think>\n\\boxed{5}"))


def test_drawn_variants_differ_between_seeds_and_not_within_one():
    for variant in ("shuffled_steps", "dropped_steps", "truncated", "wrong_answer"):
        made = [make(variant, LONG, seed).response for seed in range(8)]
        assert made == [make(variant, LONG, seed).response for seed in range(8)]
        assert len(set(made)) > 2


def test_a_short_countdown_trace_is_the_branch_that_works():
    for trace in TRACES:
        goal, tried, check = split(make("short_cot", trace).response).reasoning.strip().split("\n")
        assert goal.startswith("Goal") and check.startswith("Check")
        assert tried.startswith("Try") and tried.endswith("yes.")


@pytest.mark.parametrize(
    "said, left",
    [
        ("Wait, no. That is 5.", "No. That is 5."),
        ("Hmm... so x = 3.", "So x = 3."),
        ("But wait, in that case it is even.", "In that case it is even."),
        ("Wait for the bus.", "Wait for the bus."),
        ("The waiting time is 5.", "The waiting time is 5."),
        ("So that is 5, wait, no, 6.", "So that is 5, no, 6."),
        ("x = 3.\n\nWait.\n\nThen y = 4.", "x = 3.\n\nThen y = 4."),
        ("Let me check: 3 + 4 = 7.", "3 + 4 = 7."),
        ("Let me verify that two and two is four.", "Two and two is four."),
        ("It is 5. Let me double-check. Yes.", "It is 5. Yes."),
        ("To verify, 3 + 4 = 7.", "3 + 4 = 7."),
        ("Oh, wait a minute, actually, x is odd.", "x is odd."),
        ("```\nwait, x\n```\nHold on. Fine.", "```\nwait, x\n```\nFine."),
        ("No words of that kind: $wait, a$.", "No words of that kind: $wait, a$."),
    ],
)
def test_words_of_reflection_go_and_grammar_stays(said, left):
    assert reflection.strip(said) == left


def test_a_trace_of_nothing_but_reflection_is_refused():
    with pytest.raises(DipscopeError, match="nothing but"):
        make("stripped_keywords", replace(LONG, response="<think>\nWait. Hmm.\n</think>\n\\boxed{5}"))


@pytest.mark.parametrize(
    "answer, pattern",
    [
        ("42", r"\d+"),
        ("10,080", r"\d+,\d{3}"),
        ("0.05", r"0\.\d\d"),
        ("\\frac{3}{4}", r"\\frac\{\d+\}\{\d+\}"),
        ("(3, \\frac{\\pi}{2})", r"\(\d+, \\frac\{\\pi\}\{\d+\}\)"),
        ("C", r"[ABDE]"),
        ("\\text{(B)}", r"\\text\{\([ACDE]\)\}"),
        ("\\text{even}", r"\\text\{odd\}"),
        ("p - q", r"p - q \+ 1"),
    ],
)
def test_near_misses_keep_the_form(answer, pattern):
    prompt = "Which? (A) 1 (B) 2 (C) 3 (D) 4 (E) 5"
    found = list(near_misses.candidates("", answer, prompt, random.Random(0)))
    assert found and answer not in found and len(found) == len(set(found))
    assert all(re.fullmatch(pattern, candidate) for candidate in found)


def test_no_near_miss_of_a_name():
    assert list(near_misses.candidates("", "\\text{Evelyn}", "Who?", random.Random(0))) == []
    named = replace(LONG, response=LONG.response.replace("{5}", "{\\text{Evelyn}}"), gold="\\text{Evelyn}")
    with pytest.raises(DipscopeError, match="no near miss"):
        make("wrong_answer", named)


def test_a_near_miss_that_the_judge_accepts_is_not_taken():
    asked = []

    def generous(gold, answer):
        asked.append(answer)
        return Judgement.of(len(asked) < 3, answer)

    made = variants.apply("wrong_answer", LONG, random.Random(0), generous)
    assert len(asked) == 3 and final_answer(made.response) == asked[-1]
    for answer in ("error", "missing"):
        with pytest.raises(DipscopeError, match="no near miss"):
            variants.apply("wrong_answer", LONG, random.Random(0), lambda g, a, v=answer: Judgement(v))


def test_a_boxed_countdown_answer_becomes_another_expression():
    trace = TRACES[0]
    expression = final_answer(trace.response)
    boxed = replace(trace, response=f"<think>\nLong.\n</think>\n\nIt is $\\boxed{{{expression}}}$, as said.")
    made = variants.apply("wrong_answer", boxed, random.Random(0))
    new = final_answer(made.response)
    assert made.response == boxed.response.replace(expression, new)
    value, used = countdown.evaluate(new)
    problem = countdown.Problem.from_gold(trace.gold)
    assert sorted(used) == sorted(problem.numbers) and value != problem.target


@given(
    st.dictionaries(
        st.sampled_from(["cot", "no_cot", "short"]), st.lists(st.integers(1, 60), max_size=30), min_size=1
    ),
    st.none() | st.integers(0, 900),
)
def test_token_matched_tables_differ_by_less_than_a_row(lengths, budget):
    tables = {
        name: [Trace(f"{i}", f"{i}", "", "x" * n) for i, n in enumerate(each)]
        for name, each in lengths.items()
    }
    made = variants.token_matched(tables, lambda t: len(t.response), budget)
    limit = min(map(sum, lengths.values())) if budget is None else budget
    for name, each in lengths.items():
        kept = len(made[name])
        assert made[name] == tables[name][:kept]
        assert sum(each[:kept]) <= limit
        if kept < len(each):
            assert limit - sum(each[:kept]) < each[kept]
    if budget is None:
        assert max(sum(len(t.response) for t in rows) for rows in made.values()) == limit


@pytest.fixture(scope="module")
def real(shared):
    path = shared / "long_cot" / "unireason_sft_math500.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [
        Trace(str(r["idx"]), query_id(r["problem"]), r["problem"], "<think>\n" + r["response"], r["gold"])
        for r in rows
    ]


def test_real_traces_by_every_variant(real):
    """346 of the 500 close their thinking; 338 of these have a box after it."""
    made = {variant: {} for variant in variants.VARIANTS}
    for trace in real:
        for variant in variants.VARIANTS:
            try:
                made[variant][trace.id] = make(variant, trace)
            except DipscopeError:
                continue
    counts = {variant: len(rows) for variant, rows in made.items()}
    assert counts["cot"] == counts["unverified"] == 500
    assert {counts[v] for v in (*ON_THINKING, "no_cot", "answer_only")} == {346}
    assert 320 <= counts["wrong_answer"] <= 338
    for trace in real:
        if trace.id not in made["no_cot"]:
            continue
        final = final_answer(trace.response)
        head, tail = trace.response.split("</think>")
        assert made["no_cot"][trace.id].response == tail.strip()
        if final is not None:
            assert final_answer(made["answer_only"][trace.id].response) == final
            assert made["answer_only"][trace.id].response in tail
        for variant in ("shuffled_steps", "dropped_steps", "stripped_keywords", "short_cot"):
            assert made[variant][trace.id].response.endswith("</think>" + tail)
        assert head.startswith(made["truncated"][trace.id].response)
        shuffled = split(made["shuffled_steps"][trace.id].response).reasoning
        assert sorted(shuffled.split()) == sorted(split(trace.response).reasoning.split())
        if wrong := made["wrong_answer"].get(trace.id):
            assert wrong.response.startswith(head) and final_answer(wrong.response) != trace.gold


def test_real_traces_lose_nearly_all_words_of_reflection(real):
    for word, share in (("wait", 0.01), ("hmm", 0.01), ("alternatively", 0.01), ("hold on", 0.01)):
        pattern = re.compile(rf"\b{word}\b", re.IGNORECASE)
        thoughts = [split(t.response).reasoning for t in real]
        before = sum(len(pattern.findall(text)) for text in thoughts)
        after = sum(len(pattern.findall(reflection.strip(text))) for text in thoughts)
        assert before > 20 and after <= share * before
