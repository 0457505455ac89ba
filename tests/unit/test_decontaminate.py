"""Benchmark passages are found in training data, whatever their dress, and clean data pass."""

import gzip
import json
import random
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dipscope.data.checking import decontaminate as dc
from dipscope.data.checking.duplicates import JACCARD, Near
from dipscope.data.checking.passages import load
from dipscope.data.checking.words import ngrams, words
from dipscope.data.traces import Trace, query_id

SUFFIX = "\nPlease reason step by step, and put your final answer within \\boxed{}."
PASSAGES = [
    "A farmer owns seventeen speckled hens and sells nine of them at the village market on Monday morning.",
    "Determine how many lattice points lie strictly inside the triangle whose vertices are named below.",
    "The museum guard walks around the rectangular courtyard twice before lunch; how far does he walk?",
]
CLEAN = [
    "My sister bought a red bicycle with a small bell, and she rides it along the river every evening.",
    "Explain why the moon looks larger near the horizon, in words that a curious child understands well.",
    "Name three wooden instruments that are played with a bow and describe how each of them sounds.",
]


def trace(prompt, response="<think>\nwell\n</think>\nyes", name=None):
    return Trace(name or query_id(prompt), query_id(prompt), prompt, response)


def found(traces, passages=PASSAGES):
    return dc.find(traces, {"bench": passages})


def kinds(prompt, response="<think>\nwell\n</think>\nyes", passages=PASSAGES):
    return [(m.kind, m.where, m.passage) for m in found([trace(prompt, response)], passages)]


# The normal form


def test_words_drop_case_punctuation_and_latex_dress():
    assert words(r"The  \frac{1}{2}-way, \"HOUSE\"_x!") == ["the", "frac", "1", "2", "way", "house", "x"]
    assert words("Straße ﬁn １２ naïve") == ["strasse", "fin", "12", "naïve"]
    assert words("求x的值") == ["求", "x", "的", "值"]


@given(st.lists(st.integers(-1, 5), max_size=40), st.integers(1, 13))
def test_ngram_hashes_are_equal_just_where_ngrams_are(ids, n):
    import numpy as np

    hashes = ngrams(np.array(ids, np.int32), n).tolist()
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    assert len(hashes) == len(grams)
    assert len(set(hashes)) == len(set(grams)) == len(set(zip(hashes, grams, strict=True)))


# What is found


@st.composite
def dressed(draw, text):
    """The same words with other white space, case and punctuation."""
    shown = []
    for word in text.split():
        change = draw(st.sampled_from([str.upper, str.lower, str.title, str]))
        around = draw(st.sampled_from(["{}", '"{}"', "{},", "({})", "**{}**", "{} …", "${}$", "— {}"]))
        shown.append(around.format(change(word)))
    gap = st.sampled_from([" ", "\n", "\t", "  \n ", "\u00a0"])
    return "".join(word + draw(gap) for word in shown)


@given(st.data())
@settings(max_examples=40)
def test_an_exact_passage_is_found_in_any_dress_and_anywhere(data):
    number = data.draw(st.integers(0, len(PASSAGES) - 1))
    text = data.draw(dressed(PASSAGES[number]))
    before, after = (data.draw(st.sampled_from(["", *CLEAN, SUFFIX])) for _ in range(2))
    where = data.draw(st.sampled_from(["prompt", "response"]))
    placed = f"{before}\n{text}\n{after}"
    made = trace(placed) if where == "prompt" else trace(CLEAN[0], f"<think>\n{placed}\n</think>\nno")
    assert [(m.kind, m.where, m.passage) for m in found([made])] == [("exact", where, number)]


@given(st.data())
@settings(max_examples=40)
def test_a_passage_with_two_words_changed_is_found(data):
    number = data.draw(st.integers(0, len(PASSAGES) - 1))
    said = PASSAGES[number].split()
    for place in data.draw(st.lists(st.integers(0, len(said) - 1), min_size=1, max_size=2, unique=True)):
        said[place] = data.draw(st.sampled_from(["blue", "12", "perhaps", "lantern"]))
    (match,) = found([trace(" ".join(said) + SUFFIX)])
    assert (match.where, match.passage) == ("prompt", number)
    assert match.kind == "near" and JACCARD <= match.share <= 1


def test_thirteen_and_eight_words_in_a_row_are_told_apart():
    said = PASSAGES[0].split()
    other = " ".join(CLEAN)
    assert kinds(f"{other} {' '.join(said[2:15])} {other}") == [("13-gram", "prompt", 0)]
    assert kinds(f"{other} {' '.join(said[2:14])} {other}") == [("8-gram", "prompt", 0)]
    assert kinds(CLEAN[0], f"{other} {' '.join(said[2:10])}") == [("8-gram", "response", 0)]
    assert kinds(f"{other} {' '.join(said[2:9])} {other}") == []


def test_a_match_says_which_words():
    said = PASSAGES[0].split()
    (match,) = found([trace(f"{CLEAN[0]} {' '.join(said[2:12])}", name="t7")])
    assert match.words == "owns seventeen speckled hens and sells nine of them at"
    assert match.share == round(3 / (len(said) - 7), 4)
    assert (match.trace, match.benchmark) == ("t7", "bench")


def test_turns_before_the_prompt_are_searched():
    context = json.dumps([{"role": "user", "content": PASSAGES[1]}, {"role": "assistant", "content": "?"}])
    (match,) = found([replace(trace("Go on."), context=context)])
    assert (match.kind, match.where, match.passage) == ("exact", "prompt", 1)


@given(st.permutations(CLEAN), st.sampled_from(["", SUFFIX]))
def test_clean_data_pass(prompts, suffix):
    assert (
        found([trace(p + suffix, f"<think>\n{q}\n</think>\nso") for p, q in zip(prompts, CLEAN, strict=True)])
        == []
    )


def test_short_passages_need_the_whole_question_and_its_signs():
    short = ["What is 17 + 25?", "Name the capital."]
    assert kinds("what is 17+25", passages=short) == [("exact", "prompt", 0)]
    assert kinds("What is 17 + 25? Answer with a number.", passages=short) == [("exact", "prompt", 0)]
    assert kinds(f"Hello.\nName the capital.{SUFFIX}", passages=short) == [("exact", "prompt", 1)]
    assert kinds("What is 17 - 25?", passages=short) == []
    assert kinds("Do not tell me what is 17 + 25 or so", passages=short) == []
    assert kinds(CLEAN[0], "What is 17 + 25?", passages=short) == []


def test_an_exact_passage_has_its_own_signs():
    ask = "Start with 12, then {} 1, then - 7. What is the result of all?"
    assert kinds(ask.format("+"), passages=[ask.format("+")]) == [("exact", "prompt", 0)]
    assert ("exact", "prompt", 0) not in kinds(ask.format("-"), passages=[ask.format("+")])


def test_empty_texts_and_no_passages():
    assert dc.find([trace("", "")], {"bench": PASSAGES}) == []
    assert dc.find([trace(PASSAGES[0])], {}) == []
    assert dc.find([trace(PASSAGES[0])], {"bench": [], "blank": ["", "!?"]}) == []
    assert dc.search([], {"bench": PASSAGES}).traces == 0


# Boilerplate


def test_a_phrase_of_most_traces_is_boilerplate_and_listed_once():
    asks = "Let's think step by step and put the final answer in a box at the very end."
    passages = [f"{PASSAGES[0]} {asks}", *PASSAGES[1:]]
    traces = [trace(f"Question {n} is about {chr(97 + n)}{n}{n}. {asks}") for n in range(20)]
    outcome = dc.search([*traces, trace(PASSAGES[1])], {"bench": passages})
    assert [(m.passage, m.kind) for m in outcome.matches] == [(1, "exact")]
    (phrase,) = outcome.boilerplate
    assert phrase.words == " ".join(words(asks)) and phrase.queries == 20


def test_a_template_of_a_benchmark_is_boilerplate_also_when_its_numbers_change():
    ask = "Using each of the numbers {}, {} and {} once, write an expression that equals {} exactly."
    draw = random.Random("template")
    made = [ask.format(*(draw.randint(1, 99) for _ in range(4))) for _ in range(60)]
    outcome = dc.search([trace(p) for p in made[:30]], {"bench": made[30:]})
    assert outcome.matches == () and outcome.boilerplate
    same = dc.find([trace(made[40])], {"bench": made[30:]})
    assert [(m.passage, m.kind) for m in same] == [(10, "exact")]


def test_counting_is_no_contamination():
    passage = "Write down 1 2 3 4 5 6 7 8 9 10 11 12 13 14 in a circle so that neighbours are coprime."
    assert kinds(CLEAN[0], "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14", [passage]) == []


def test_responses_of_one_query_count_once_towards_boilerplate():
    traces = [trace(CLEAN[0], f"Sample {n}: {PASSAGES[0]}", f"t{n}") for n in range(40)]
    assert Counter(m.kind for m in found(traces)) == {"exact": 40}
    tail = " ".join(PASSAGES[0].split()[:9])
    traces = [trace(CLEAN[0], f"Sample {n}: {tail}", f"t{n}") for n in range(40)]
    assert Counter(m.kind for m in found(traces)) == {"8-gram": 40}


# Against a naive reference

VOCABULARY = ["ab", "cd", "ef", "gh", "ij", "7", "12", "x"]
texts = st.lists(st.sampled_from(VOCABULARY), max_size=30).map(" ".join)


def naive_ngrams(traces, passages, n):
    """(trace, where, passage) with a telling n-gram that is no boilerplate, by plain counting."""
    mask = lambda gram: tuple(w if len(w) > 1 and w.isalpha() else "0" for w in gram)  # noqa: E731
    grams = lambda text: {tuple(text.split()[i : i + n]) for i in range(len(text.split()) - n + 1)}  # noqa: E731
    items, queries = Counter(), defaultdict(set)
    for text in passages:
        items.update({mask(g) for g in grams(text)})
    known = set().union(*map(grams, passages))
    for t in traces:
        for g in (grams(t.prompt) | grams(t.response)) & known:
            if len({w for w in g if len(w) > 1 and w.isalpha()}) >= 4:
                queries[mask(g)].add(t.query)
    usual = {f for f, count in items.items() if count > max(0.01 * len(passages), 2)}
    usual |= {f for f, who in queries.items() if len(who) > max(0.01 * len({t.query for t in traces}), 10)}
    return {
        (t.id, where, number)
        for t in traces
        for where, text in (("prompt", t.prompt), ("response", t.response))
        for number, passage in enumerate(passages)
        for g in grams(text) & grams(passage)
        if mask(g) not in usual and len({w for w in g if len(w) > 1 and w.isalpha()}) >= 4
    }


@given(st.lists(st.tuples(texts, texts), max_size=14), st.lists(texts, min_size=1, max_size=5))
@settings(max_examples=60)
def test_ngram_matches_are_those_of_a_naive_search(rows, passages):
    traces = [trace(p, r, f"t{i}") for i, (p, r) in enumerate(rows)]
    outcome = dc.search(traces, {"bench": passages})
    for n in (8, 13):
        expected = naive_ngrams(traces, passages, n)
        stronger = {"exact", "near", "13-gram"} | ({"8-gram"} if n == 8 else set())
        got = {(m.trace, m.where, m.passage) for m in outcome.matches if m.kind in stronger}
        assert expected <= got
        only = {(m.trace, m.where, m.passage) for m in outcome.matches if m.kind == f"{n}-gram"}
        assert only <= expected


@given(st.lists(texts, min_size=1, max_size=6), texts)
@settings(max_examples=60)
def test_similarity_is_the_exact_jaccard_of_trigrams(passages, prompt):
    trigrams = lambda t: {tuple(t.split()[i : i + 3]) for i in range(len(t.split()) - 2)}  # noqa: E731
    near = Near(load({"bench": passages[:2]}))  # too few items for a template
    mine = trigrams(prompt)
    expected = {}
    for number, passage in enumerate(passages[:2]):
        theirs = trigrams(passage)
        if len(mine & theirs) >= 4:
            similarity = len(mine & theirs) / len(mine | theirs)
            if similarity >= JACCARD:
                expected[number] = similarity
    got = {}
    for candidate in near.look(prompt):  # of the prompt, and the same of its only line
        got[candidate.passage] = near.similarity(candidate)
    assert got == pytest.approx({n: s for n, s in expected.items() if n in got})
    # Hashing may miss a pair at the threshold (2 in 1000), but none that shares half.
    assert {n for n, s in expected.items() if s >= 0.5} <= set(got)


def test_batches_do_not_change_the_outcome(monkeypatch):
    draw = random.Random("batches")
    pieces = [*CLEAN, *PASSAGES, *(" ".join(p.split()[3:13]) for p in PASSAGES)]
    traces = [
        trace(" ".join(draw.choices(pieces, k=2)), " ".join(draw.choices(pieces, k=3)), f"t{i}")
        for i in range(9)
    ]
    whole = dc.search(traces, {"bench": PASSAGES})
    monkeypatch.setattr(dc, "_BATCH_WORDS", 20)
    assert dc.search(iter(traces), {"bench": PASSAGES}) == whole


# What is done with matches


def test_drop_leaves_the_clean_rows_in_order():
    rows = [trace(p) for p in (CLEAN[0], PASSAGES[0], CLEAN[1], " ".join(PASSAGES[1].split()[:9]), CLEAN[2])]
    matches = found(rows)
    assert [t.prompt for t in dc.drop(rows, matches)] == CLEAN
    assert len(list(dc.drop(rows, matches, {"exact"}))) == 4


def test_counts_take_the_strongest_kind_of_a_trace():
    rows = [trace(PASSAGES[0], " ".join(PASSAGES[1].split()[:9])), trace(CLEAN[0])]
    outcome = dc.search(
        rows, {"bench": PASSAGES, "other": ["Nothing of this kind stands anywhere in the rows at all."]}
    )
    assert outcome.counts()["bench"] == {"exact": 1, "near": 0, "13-gram": 0, "8-gram": 0}
    assert sum(outcome.counts()["other"].values()) == 0
    assert json.loads(json.dumps(outcome.as_dict()))["matched_traces"] == 1


def test_surroundings_show_the_place():
    row = trace(CLEAN[0], f"{CLEAN[1]} {PASSAGES[0].replace(' ', '  ').upper()} {CLEAN[2]}")
    (match,) = found([row])
    shown = dc.surroundings(row, match, 12)
    assert PASSAGES[0].upper().rstrip(".") in shown
    assert shown.startswith("…") and shown.endswith("…") and len(shown) < len(PASSAGES[0]) + 40


def test_without_datasketch_one_line_says_what_to_install(monkeypatch):
    import sys

    from dipscope.errors import DipscopeError

    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(DipscopeError, match=r"pip install 'dipscope\[data\]'"):
        found([trace("x")])


# Real data


def read(path):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt") as file:
        return [json.loads(line) for line in file]


def test_real_benchmarks_find_themselves_and_not_each_other(shared):
    math = [r["problem"] for r in read(shared / "math500" / "test.jsonl")]
    gsm = [r["question"] for r in read(shared / "gsm8k" / "test.jsonl")]
    itself = dc.search([trace(p, "", f"m{i}") for i, p in enumerate(math)], {"math500": math})
    assert itself.counts()["math500"]["exact"] == 500
    assert dc.find([trace(p, "", f"g{i}") for i, p in enumerate(gsm)], {"math500": math}) == []


def test_real_long_traces_are_on_the_problems_that_they_are_on(shared):
    rows = read(shared / "long_cot" / "unireason_sft_math500.jsonl.gz")
    math = [r["problem"] for r in read(shared / "math500" / "test.jsonl")]
    gsm = [r["question"] for r in read(shared / "gsm8k" / "test.jsonl")]
    traces = [trace(r["problem"], r["response"], str(i)) for i, r in enumerate(rows)]
    outcome = dc.search(traces, {"math500": math, "gsm8k": gsm})
    exact = {m.trace for m in outcome.matches if m.kind == "exact" and m.where == "prompt"}
    assert len(exact) == 500
    # "angles in a triangle add up to 180 degrees": a fact that a response and a GSM8K problem both state.
    strangers = [m for m in outcome.matches if m.benchmark == "gsm8k"]
    assert [(m.kind, m.where) for m in strangers] == [("8-gram", "response")]


def test_real_problems_with_words_changed_are_found(shared):
    gsm = [r["question"] for r in read(shared / "gsm8k" / "test.jsonl")][:400]
    draw, rows = random.Random("edits"), []
    for i, text in enumerate(gsm):
        said = text.split()
        for place in draw.sample(range(len(said)), 2):
            said[place] = draw.choice(["another", "which", "7", "seven"])
        rows.append(trace(f"Solve this.\n{' '.join(said)}{SUFFIX}", "", str(i)))
    hit = {m.trace for m in dc.find(rows, {"gsm8k": gsm}) if m.trace == str(m.passage)}
    assert len(hit) >= 0.99 * len(gsm)
