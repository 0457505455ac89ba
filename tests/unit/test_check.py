"""The statistics of a data set, its verification, and what training will see of it."""

import gzip
import json
import random
import re
import sys
import unicodedata
import zlib
from collections import Counter
from dataclasses import replace

import pytest
import tinymodel
from hypothesis import given
from hypothesis import strategies as st
from typer import Typer
from typer.testing import CliRunner

from dipscope.benchmarks import passages
from dipscope.data import traces
from dipscope.data.checking import check, language, repetition, spread
from dipscope.data.checking.words import words
from dipscope.data.tokenize import render
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError
from dipscope.scoring.base import MISSING, Judgement
from dipscope.train import targets
from dipscope.verbs import data_check

CLOSED = "<think>\none two three\n</think>\nSo it is \\boxed{4}."
OPEN = "<think>\nI wonder whether it is \\boxed{5}"
PLAIN = "Answer: 7"


def rows(*responses, prompt="What is it?", **fields):
    return [Trace(f"t{i}", f"q{i}", prompt, text, **fields) for i, text in enumerate(responses)]


def described(table, tokenizer=None):
    return check.describe(iter(table), tokenizer, languages=False)


# Statistics


def test_what_is_counted():
    stats = described(rows(CLOSED, OPEN, PLAIN, "no idea", gold="4", verdict="correct", finish="stop"))
    assert (stats.rows, stats.queries, stats.unit) == (4, 4, "words")
    assert (stats.reasoned, stats.closed, stats.answered, stats.gold) == (2, 3, 2, 4)
    assert (
        stats.verdicts == {"correct": 4} and stats.origins == {"teacher": 4} and stats.finishes == {"stop": 4}
    )


def test_repeated_responses_and_queries_are_rows_that_came_before():
    table = rows("a", "b", "a", "a")
    table[3] = replace(table[3], query="q0")
    stats = described(table)
    assert (stats.repeated_responses, stats.repeated_queries) == (2, 1)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40), st.integers(0, 9)), max_size=150))
def test_lengths_are_those_of_plain_counting(sizes):
    table = [
        Trace(str(i), str(i), "w " * p, f"<think>{'w ' * r}</think>{'w ' * a}")
        for i, (p, r, a) in enumerate(sizes)
    ]
    stats = described(table)
    for place, part in enumerate(check.PARTS):
        values = sorted(row[place] for row in sizes)
        found = stats.lengths[part]
        assert (found.count, found.total) == (len(values), sum(values))
        if values:
            # The smallest value that at least q percent of the rows do not exceed.
            expected = [min(v for v in values if sum(x <= v for x in values) * 100 >= q * len(values))
                        for q in spread.QUANTILES]  # fmt: skip
            assert list(found.quantiles) == expected
            assert found.mean == pytest.approx(sum(values) / len(values))
        assert sum(n for _, n in found.bins) == found.present == sum(v >= 1 for v in values)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_a_length_lies_in_its_bin(values):
    # Bin k begins at 2^(k/4), so v lies in the bin whose number is the whole part of log2(v^4).
    expected = Counter((v**4).bit_length() - 1 for v in values)
    assert dict(spread.of(values, binned=True).bins) == expected


def test_lengths_in_tokens_of_the_tokenizer():
    tokenizer = tinymodel.tokenizer()
    table = tinymodel.traces(70)
    stats = described(table, tokenizer)
    assert stats.unit.startswith("tokens of")
    size = lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    assert stats.lengths["prompt"].total == sum(size(t.prompt) for t in table)
    inner = [t.response.partition("<think>")[2].partition("</think>") for t in table]
    assert stats.lengths["reasoning"].total == sum(size(r) for r, _, _ in inner)
    assert stats.lengths["answer"].total == sum(size(a) for _, _, a in inner)


def test_an_empty_table_has_statistics_and_json():
    stats = described([])
    assert stats.rows == 0 and stats.lengths["answer"].quantiles == ()
    assert json.loads(json.dumps(stats.as_dict()))["rows"] == 0


def test_statistics_are_json_and_do_not_depend_on_batches(monkeypatch):
    table = tinymodel.traces(30)
    whole = check.describe(table).as_dict()
    monkeypatch.setattr(check, "_BATCH", 7)
    assert check.describe(table).as_dict() == whole == json.loads(json.dumps(whole))


# Repetition


@given(st.lists(st.sampled_from("abc"), max_size=60))
def test_overlap_is_the_share_of_ngrams_said_before(letters):
    grams = [tuple(letters[i : i + 8]) for i in range(len(letters) - 7)]
    again = sum(g in grams[:i] for i, g in enumerate(grams))
    found = repetition.measure(" ".join(letters))
    assert found.overlap == pytest.approx(again / len(grams) if grams else 0.0)
    assert not found.looping


@given(st.text(st.sampled_from("aB1 .é\u0301\u2460ﬁ\u6c42\n\r\u2028_\\{"), max_size=60))
def test_words_do_not_depend_on_the_lines_they_stand_in(text):
    """Against the normal form of the whole text; some lines are ASCII, some are not."""
    whole = unicodedata.normalize("NFKC", text).casefold().replace("\u6c42", " \u6c42 ")
    assert words(text) == re.findall(r"[^\W_]+", whole)


def test_a_loop_is_told_from_long_text():
    draw = random.Random("loop")
    text = " ".join(f"w{draw.randint(0, 2000)}" for _ in range(1500))
    plain = repetition.measure(text)
    assert not plain.looping and plain.overlap < 0.01 and plain.compression > 0.3
    looping = repetition.measure(text + " wait, let me check that once more." * 60)
    assert looping.looping and looping.compression < plain.compression
    raw = text.encode()
    assert plain.compression == len(zlib.compress(raw, 1)) / len(raw)


def test_short_and_odd_texts_have_a_repetition():
    assert repetition.measure("").compression == repetition.measure("7").compression == 1.0
    assert not repetition.measure("\ud800 lone surrogate").looping


# Languages


def test_languages_are_told_without_formulas_and_code():
    english = "The quick brown fox jumps over the lazy dog, and nobody in the village minds it at all."
    german = "Der schnelle braune Fuchs springt über den faulen Hund, und niemand im Dorf stört sich daran."
    chinese = "我们需要先把这个问题分成两个部分，然后分别计算每个部分的结果，最后把它们加起来得到答案。"
    stats = check.describe(rows(english, german, chinese, "$x^2 + y^2 = z^2$ \\boxed{7}"))
    assert stats.languages == {"de": 1, "en": 1, "und": 1, "zh": 1}


def test_the_sample_is_bounded_and_independent_of_the_order():
    identify = lambda text: text  # noqa: E731
    entries = [(f"row {i}", str(i)) for i in range(200)]
    kept = []
    for order in (entries, entries[::-1]):
        sample = language.Sample(20)
        for row, text in order:
            sample.offer(row, text)
        kept.append(sample.count(identify))
    assert kept[0] == kept[1] and sum(kept[0].values()) == 20


def test_without_py3langid_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid", None)
    with pytest.raises(DipscopeError, match=r"pip install 'dipscope\[data\]'"):
        check.describe(rows(CLOSED))
    assert described(rows(CLOSED)).languages == {}


# Verification


class Fake:
    """Judges by equality; an answer of 'hang' is an error."""

    def judge(self, pairs):
        for gold, answer in pairs:
            if answer is None:
                yield MISSING
            else:
                yield Judgement("error") if answer == "hang" else Judgement.of(gold == answer)


def test_verification_counts_verdicts_and_leaves_errors_out_of_the_rate():
    table = rows(CLOSED, OPEN, PLAIN, "\\boxed{hang}", CLOSED, gold="4")
    table[4] = replace(table[4], gold="", verdict="correct")
    table[2] = replace(table[2], verdict="correct")
    table[0] = replace(table[0], verdict="correct")
    found = check.verification(iter(table), Fake())
    assert found.verdicts == {"correct": 1, "error": 1, "missing": 1, "wrong": 1}
    assert (found.rows, found.without_gold, found.changed, found.judged) == (5, 1, 1, 3)
    assert found.rate == pytest.approx(1 / 3)
    assert check.verification([], Fake()).rate is None


# What training sees


def test_targets_count_what_the_rows_become():
    tokenizer, table = tinymodel.tokenizer(), tinymodel.traces(40)
    examples = [render(tokenizer, t, 24) for t in table]
    found = targets.inspect(tokenizer, iter(table), 24)
    assert found.rows == 40 and found.cut == sum(e.cut for e in examples) > 0
    assert found.prompt_tokens == sum(len(e.prompt_ids) for e in examples)
    assert found.target_tokens == sum(len(e.target_ids) for e in examples)
    assert found.ended == 40 - found.cut and found.end == "<|im_end|>"
    assert found.thinking == found.kept == 40 - found.cut and not found.refusal
    assert found.begins.startswith("<|im_start|>") and found.ends.rstrip().endswith("<|im_end|>")


def test_targets_say_why_training_would_refuse():
    lost = targets.inspect(tinymodel.tokenizer(think=False), tinymodel.traces(5), 256)
    assert lost.kept == 0 and "does not survive" in lost.refusal
    cut = targets.inspect(tinymodel.tokenizer(), tinymodel.traces(5), 9)
    assert cut.cut == 5 and cut.refusal
    with pytest.raises(DipscopeError, match="no rows"):
        targets.inspect(tinymodel.tokenizer(), [], 9)


def test_the_sample_of_targets_is_bounded(monkeypatch):
    monkeypatch.setattr(targets, "SAMPLE", 4)
    table = tinymodel.traces(30)
    found = targets.inspect(tinymodel.tokenizer(), table, 256)
    assert found.thinking == 4 and found.rows == 30 and found.notes[0].startswith("4 rows")


# Passages


def test_passages_come_from_benchmarks_and_files(tmp_path):
    path = tmp_path / "set" / "test.jsonl"
    path.parent.mkdir()
    path.write_text(
        "".join(json.dumps({"question": q, "problem": f"p {q}", "answer": "1"}) + "\n" for q in "ab")
    )
    found = passages.load([str(path), "organism/count"], 3)
    assert found["set/test.jsonl"] == ["p a", "p b"]
    assert len(found["organism/count"]) == 3
    with pytest.raises(DipscopeError, match="no benchmark is named 'organism/nothing'"):
        passages.load(["organism/nothing"])
    with pytest.raises(DipscopeError, match=r"missing\.jsonl"):
        passages.load([str(tmp_path / "missing.jsonl")])


# The verb

app = Typer()
app.command()(data_check.check)
ASKED = "Ten brown foxes walk along the river bank while nine herons stand in the shallow water and watch."


def run(*arguments):
    outcome = CliRunner().invoke(app, [*map(str, arguments)])
    if outcome.exception and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    return outcome.stdout


def pool(folder):
    table = [
        Trace("t0", "q0", "What is two and two? Say it in words or digits, as you like.", CLOSED, "4"),
        Trace("t1", "q1", ASKED.upper(), OPEN, "4"),
        Trace("t2", "q2", "Which number comes after the number six, if you count by ones?", PLAIN, "7"),
    ]
    traces.write(folder / "pool.parquet", table)
    (folder / "bench.jsonl").write_text(json.dumps({"prompt": ASKED}) + "\n")
    return folder / "pool.parquet"


def test_the_verb_says_all_of_it_as_json(tmp_path):
    source = pool(tmp_path)
    out, card = tmp_path / "clean.parquet", tmp_path / "card"
    made = ("--drop", out, "--card", card, "--workers", 1, "--json")
    against = ("--against", tmp_path / "bench.jsonl")
    printed = run(source, *against, "--tokenizer", "organism:S", "--max-length", 64, *made)
    said = json.loads(printed.splitlines()[-1])
    assert said["stats"]["rows"] == 3 and said["stats"]["unit"] == "tokens of organism:S"
    assert said["verification"]["verdicts"] == {"correct": 2, "missing": 1}
    assert said["targets"]["rows"] == 3 and said["dropped"] == 1
    assert [(m["trace"], m["kind"]) for m in said["decontamination"]["matches"]] == [("q1-0", "exact")]
    assert [t.id for t in traces.read(out)] == ["q0-0", "q2-0"]
    assert (card / "README.md").is_file() and (card / "figures" / "lengths.svg").is_file()


def test_the_verb_prints_tables_and_passages_in_their_place(tmp_path):
    printed = run(pool(tmp_path), "--against", tmp_path / "bench.jsonl", "--no-verify")
    assert "prompt ← prompt" in printed and "not asked for" in printed
    assert "TEN BROWN FOXES WALK" in printed and "bench.jsonl #0 (exact)" in " ".join(printed.split())


def test_kinds_decide_what_is_dropped(tmp_path):
    source, out = pool(tmp_path), tmp_path / "clean.parquet"
    against = ("--against", tmp_path / "bench.jsonl", "--no-verify", "--drop", out)
    run(source, *against, "--kinds", "near,8-gram")
    assert len(traces.read(out)) == 3
    with pytest.raises(DipscopeError, match="names no kinds"):
        run(source, *against, "--kinds", "fuzzy")
    with pytest.raises(DipscopeError, match="what to drop"):
        run(source, "--drop", out)


# Real data


def test_real_long_traces(shared):
    with gzip.open(shared / "long_cot" / "unireason_sft_math500.jsonl.gz", "rt") as file:
        found = [json.loads(line) for line in file]
    table = [Trace(str(i), str(i), r["problem"], f"<think>\n{r['response']}") for i, r in enumerate(found)]
    stats = check.describe(table)
    assert stats.rows == stats.queries == stats.reasoned == 500
    assert stats.closed == sum(r["has_close_think"] for r in found) == 346
    assert stats.languages == {"en": 500}
    # Every response that ends in a loop is one that never closed its thinking.
    closed = check.describe((t for t in table if "</think>" in t.response), languages=False)
    assert stats.looping == 18 and closed.looping == 0
