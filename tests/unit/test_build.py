"""A build against a naive one, its resumption, its refusals, and the real long traces."""

import gzip
import json
import os
import random
import statistics
import subprocess
import sys
from dataclasses import replace

import polars as pl
import pytest

from dipscope.data import traces
from dipscope.data.building import build as building
from dipscope.data.building import pool, provenance, verdict_cache
from dipscope.data.building.build import Rules
from dipscope.data.reading.sources import Source, open_table
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError
from dipscope.scoring.answers import final_answer
from dipscope.scoring.base import MISSING, Judgement
from dipscope.scoring.thinking import split


class FakeTable:
    """A pool in memory, as `sources.Table` gives it."""

    def __init__(self, rows, name="a"):
        self.all, self.rows, self.taken = rows, len(rows), []
        self.facts = {
            "source": name,
            "files": [{"name": "x", "sha256": name}],
            "columns": {"prompt": "prompt"},
        }

    def scan(self, look, workers=1):
        return look(iter(self.all))

    def take(self, ordinals):
        assert list(ordinals) == sorted(set(ordinals))
        self.taken += ordinals
        return (self.all[o] for o in ordinals)


class Exact:
    """Judges by equality; an answer `?` is an error, the n-th pair may be the last."""

    def __init__(self, last=10**9):
        self.asked, self.last = [], last

    def judge(self, pairs):
        for gold, answer in pairs:
            if len(self.asked) == self.last:
                raise KeyboardInterrupt
            self.asked.append((gold, answer))
            if answer is None:
                yield MISSING
            elif answer == "?":
                yield Judgement("error", None, answer)
            else:
                yield Judgement.of(gold == answer, answer)


def response(answer, steps=4, words="word "):
    thinking = "\n\n".join(f"Step {n} {words * (n + 1)}." for n in range(steps))
    return f"<think>\n{thinking}\n</think>\n\nHence it is so.\n\\boxed{{{answer}}}"


def make_pool(seed=0, queries=40, samples=6):
    """Responses of every kind, those of a query scattered over the table."""
    rng = random.Random(seed)
    rows = []
    for q in range(queries):
        for n in range(samples):
            answer = rng.choice([str(q), str(q), str(q + 1), "?"])
            text = response(answer, rng.randint(2, 6), "word " * rng.randint(1, 5))
            finish = rng.choice(["stop", "stop", "", "length"])
            kind = rng.random()
            if kind < 0.1:
                text = text.partition("</think>")[0]
            elif kind < 0.2:
                text = text.partition("\\boxed")[0]
            gold = "" if q % 10 == 9 else str(q)
            rows.append(
                Trace(f"q{q}-{n}", f"q{q}", f"What is {q}?", text, gold, source=f"x:{q}-{n}", finish=finish)
            )
    rng.shuffle(rows)
    return rows


def naive(rows, verdict="correct"):
    """Query → its complete responses of a verdict, in table order."""
    found = {}
    for row in rows:
        answer = final_answer(row.response)
        if row.finish == "length" or not split(row.response).closed or answer is None:
            continue
        said = (
            "" if not row.gold else "error" if answer == "?" else "correct" if answer == row.gold else "wrong"
        )
        if verdict is None or said == verdict:
            found.setdefault(row.query, []).append(row)
    return found


def run(tmp_path, rows, rules=None, judge=None, **options):
    out = options.pop("out", tmp_path / "out")
    made = building.build(FakeTable(rows), out, rules or Rules(), judge or Exact(), **options)
    return made, {variant: traces.read(out / f"{variant}.parquet") for variant in made["variants"]}


def test_counts_are_those_of_a_naive_count(tmp_path):
    rows = make_pool()
    made, tables = run(tmp_path, rows)
    finished = [r for r in rows if r.finish != "length"]
    closed = [r for r in finished if split(r.response).closed]
    answered = [r for r in closed if final_answer(r.response) is not None]
    right = [r for r in answered if r.gold and final_answer(r.response) == r.gold]
    expected = {
        "responses": rows,
        "not cut at the length limit": finished,
        "thinking closed": closed,
        "with a final answer": answered,
        "with a gold answer": [r for r in answered if r.gold],
        "verified correct": right,
    }
    assert {name: made["counts"][name] for name in expected} == {n: len(v) for n, v in expected.items()}
    assert {name: made["queries"][name] for name in expected} == {
        n: len({r.query for r in v}) for n, v in expected.items()
    }
    assert made["verification"]["verdicts"]["error"] == sum(
        bool(r.gold) and final_answer(r.response) == "?" for r in answered
    )
    assert len(tables["cot"]) == len({r.query for r in right}) == made["variants"]["cot"]["rows"]


def test_only_different_pairs_are_verified_once(tmp_path):
    rows, judge = make_pool(), Exact()
    run(tmp_path, rows, judge=judge)
    complete = [r for found in naive(rows, None).values() for r in found if r.gold]
    assert sorted(judge.asked) == sorted({(r.gold, final_answer(r.response)) for r in complete})


@pytest.mark.parametrize("keep", ["random", "shortest", "longest", "median"])
def test_the_kept_response_is_that_of_the_rule(tmp_path, keep):
    rows = make_pool()
    _, tables = run(tmp_path, rows, Rules(keep=keep, variants=("cot", "unverified", "wrong_answer")))
    right, usable, wrong = naive(rows), naive(rows, None), naive(rows, "wrong")
    by_id = {r.id: r for r in rows}
    seen = set()
    for kept, free, bad in zip(tables["cot"], tables["unverified"], tables["wrong_answer"], strict=True):
        for row, choices in ((kept, right), (free, usable), (bad, wrong)):
            if row is bad and kept.query not in wrong:
                assert row.id == kept.id and "near miss" in row.source
                continue
            lengths = [len(r.response) for r in choices[row.query]]
            wanted = {
                "random": len(row.response),
                "shortest": min(lengths),
                "longest": max(lengths),
                "median": statistics.median_low(lengths),
            }[keep]
            assert row.id in {r.id for r in choices[row.query]}
            assert len(row.response) == wanted and row.response == by_id[row.id].response
        seen.add((kept.verdict, free.verdict, bad.verdict))
        if free.verdict == "correct" and keep == "random":
            assert free.id == kept.id
    assert {s[0] for s in seen} == {"correct"} and {s[2] for s in seen} == {"wrong"}
    assert {s[1] for s in seen} >= {"correct", "wrong"}


def test_random_choices_follow_the_seed_and_are_fair(tmp_path):
    rows = [Trace(f"q{q}-{n}", f"q{q}", "?", response("1"), "1") for q in range(400) for n in range(4)]
    first = {}
    for seed in (0, 1):
        out = tmp_path / str(seed)
        _, tables = run(tmp_path, rows, Rules(seed=seed, variants=("cot",)), out=out)
        first[seed] = [t.id for t in tables["cot"]]
        picked = [sum(i.endswith(f"-{n}") for i in first[seed]) for n in range(4)]
        assert sum(picked) == 400 and min(picked) > 60  # 100 expected, 4.6 standard deviations
    assert first[0] != first[1] and sorted(first[0]) != sorted(first[1])


def test_variants_are_matched_and_a_smaller_sample_begins_a_larger_one(tmp_path):
    rows = make_pool()
    # One response in four cannot be dropped from: it has a single step.
    rows = [replace(r, response=response(r.gold, 1)) if r.query.endswith("2") else r for r in rows]
    wanted = ("cot", "no_cot", "answer_only", "dropped_steps", "wrong_answer")
    whole, tables = run(tmp_path, rows, Rules(variants=wanted), out=tmp_path / "all")
    some, fewer = run(tmp_path, rows, Rules(variants=wanted, rows=9), out=tmp_path / "nine")
    queries = [t.query for t in tables["cot"]]
    assert len(set(queries)) == len(queries) and not any(q.endswith("2") for q in queries)
    for variant in wanted:
        assert [t.query for t in tables[variant]] == queries
        assert fewer[variant] == tables[variant][:9]
        for row, base in zip(tables[variant], tables["cot"], strict=True):
            assert (row.prompt, row.gold, row.context) == (base.prompt, base.gold, base.context)
            assert row.source.startswith("x:") and f"; {variant}" in row.source
    assert whole["refused"] == {
        "dropped_steps": {"the thinking is a single step, of which none can be dropped": 4}
    }
    assert whole["counts"]["queries drawn"] - 4 == len(queries)
    assert some["counts"]["queries of which every variant can be made"] == 9


def test_lengths_are_bounded_in_characters_or_tokens(tmp_path):
    rows = make_pool()

    class Words:
        name_or_path = "/some/where/words"

        def __call__(self, texts, **_):
            return {"input_ids": [text.split() for text in texts]}

    for tokenizer, size in ((None, len), (Words(), lambda text: len(text.split()))):
        lengths = sorted(size(r.response) for found in naive(rows, None).values() for r in found)
        low, high = lengths[len(lengths) // 4], lengths[len(lengths) // 2]
        made, tables = run(
            tmp_path, rows, Rules(shortest=low, longest=high), tokenizer=tokenizer, out=tmp_path / str(size)
        )
        admitted = sum(low <= length <= high for length in lengths)
        assert made["counts"]["of an admitted length"] == admitted
        assert all(low <= size(t.response) <= high for t in tables["cot"])
    assert made["rules"]["tokenizer"] == "words"


def test_without_gold_answers_only_unverified_can_be_built(tmp_path):
    rows = [replace(r, gold="") for r in make_pool()]
    with pytest.raises(DipscopeError, match=r"no row is left.*verified correct: 0"):
        run(tmp_path, rows)
    made, tables = run(tmp_path, rows, Rules(variants=("unverified",)), out=tmp_path / "free")
    assert {t.query for t in tables["unverified"]} == set(naive(rows, None))
    assert "verified correct" not in made["counts"] and {t.verdict for t in tables["unverified"]} == {""}


def test_the_same_inputs_give_the_same_bytes_and_a_second_call_does_nothing(tmp_path):
    rows, rules = make_pool(), Rules(variants=("cot", "shuffled_steps", "truncated", "wrong_answer"))
    folders = [tmp_path / "a", tmp_path / "b"]
    for out in folders:
        made, _ = run(tmp_path, rows, rules, out=out)
        assert made["fresh"]
    names = sorted(p.name for p in folders[0].iterdir() if p.is_file())
    assert names == sorted([*(f"{v}.parquet" for v in rules.variants), "provenance.json"])
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    judge, table = Exact(), FakeTable(rows)
    again = building.build(table, folders[0], rules, judge)
    assert not again["fresh"] and not judge.asked and not table.taken
    assert again["variants"] == made["variants"]


def test_a_damaged_output_is_made_again(tmp_path):
    rows = make_pool()
    made, tables = run(tmp_path, rows)
    (tmp_path / "out" / "no_cot.parquet").write_bytes(b"damaged")
    judge = Exact()
    again, after = run(tmp_path, rows, judge=judge)
    assert again["fresh"] and again["variants"] == made["variants"] and after == tables
    assert not judge.asked  # the verdicts were kept


@pytest.mark.parametrize("what", ["rules", "source", "unfinished", "foreign"])
def test_a_folder_of_another_build_is_refused(tmp_path, what):
    rows, out = make_pool(), tmp_path / "out"
    if what == "foreign":
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")
    elif what == "unfinished":
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, rows, Rules(seed=1), Exact(last=3))
    else:
        run(tmp_path, rows)
    before = sorted(out.rglob("*"))
    table = FakeTable(rows, "b" if what == "source" else "a")
    with pytest.raises(DipscopeError, match=r"another build|no folder of a build"):
        building.build(table, out, Rules(seed=1 if what in ("rules", "foreign") else 0), Exact())
    assert sorted(out.rglob("*")) == before


def test_an_interrupted_verification_goes_on_where_it_stopped(tmp_path, monkeypatch):
    rows = make_pool()
    whole = Exact()
    made, tables = run(tmp_path, rows, judge=whole, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, rows, judge=Exact(last=20))
    rest = Exact()
    again, same = run(tmp_path, rows, judge=rest)
    assert len(rest.asked) == len(whole.asked) - 20
    assert same == tables and again["variants"] == made["variants"]


def test_a_killed_verification_loses_less_than_a_shard(tmp_path):
    """The process ends without any chance to tidy up; 12 verdicts were reached, shards hold 5."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from dipscope.scoring.base import Judgement\n"
        "from dipscope.data.building import verdict_cache\n"
        "verdict_cache.FLUSH = 5\n"
        "class Judge:\n"
        "    def judge(self, pairs):\n"
        "        for n, (gold, answer) in enumerate(pairs):\n"
        "            if n == 12: os._exit(9)\n"
        "            yield Judgement.of(gold == answer)\n"
        "pairs = [(str(n % 3), str(n)) for n in range(30)]\n"
        "verdict_cache.verdicts(pairs, Judge(), Path(sys.argv[1]))\n"
    )
    folder = tmp_path / "verdicts"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], env={**os.environ}, check=False)
    assert done.returncode == 9
    shards = sorted(folder.glob("*.parquet"))
    assert len(shards) == 2
    pairs = [(str(n % 3), str(n)) for n in range(30)]
    judge = Exact()
    found = verdict_cache.verdicts(pairs, judge, folder)
    assert judge.asked == pairs[10:]
    assert found == ["correct" if gold == answer else "wrong" for gold, answer in pairs]
    # A damaged shard costs its verdicts and nothing else; reached again, they make the same shard.
    whole = shards[0].read_bytes()
    shards[0].write_bytes(whole[:-1] + b"x")
    judge = Exact()
    assert verdict_cache.verdicts(pairs, judge, folder) == found
    assert len(judge.asked) == 5 and shards[0].read_bytes() == whole


def test_verdicts_of_another_verifier_do_not_count(tmp_path, monkeypatch):
    pairs = [("1", "1"), ("1", "2")]
    verdict_cache.verdicts(pairs, Exact(), tmp_path)
    monkeypatch.setattr("dipscope.scoring.verify.VERSION", "another")
    judge = Exact()
    verdict_cache.verdicts(pairs, judge, tmp_path)
    assert judge.asked == pairs


def test_several_builds_share_a_cache(tmp_path):
    rows, cache = make_pool(), tmp_path / "cache"
    run(tmp_path, rows, cache=cache, out=tmp_path / "a")
    judge = Exact()
    run(tmp_path, rows, Rules(seed=1), judge, cache=cache, out=tmp_path / "b")
    assert not judge.asked and not list((tmp_path / "b" / ".cache").glob("verdicts/*"))


def test_token_matching_equals_supervised_tokens(tmp_path):
    from dipscope.data.tokenize import render
    from dipscope.organism import tokenizer as organism

    tokenizer = organism.build()
    rows = make_pool()
    made, tables = run(tmp_path, rows, Rules(token_matched=True), tokenizer=tokenizer)
    _, whole = run(tmp_path, rows, out=tmp_path / "rows")
    tokens = {v: [len(render(tokenizer, t, 10**6).target_ids) for t in table] for v, table in whole.items()}
    budget = min(map(sum, tokens.values()))
    assert made["variants"]["no_cot"]["tokens"] == budget == sum(tokens["no_cot"])
    kept = len(tables["cot"])
    assert 0 < kept < len(whole["cot"]) and tables["cot"] == whole["cot"][:kept]
    assert made["variants"]["cot"]["tokens"] == sum(tokens["cot"][:kept]) <= budget
    assert budget - sum(tokens["cot"][:kept]) < tokens["cot"][kept]
    half, _ = run(
        tmp_path,
        rows,
        Rules(token_matched=True, budget=budget // 2),
        tokenizer=tokenizer,
        out=tmp_path / "half",
    )
    assert all(v["tokens"] <= budget // 2 for v in half["variants"].values())


QUESTION = "Which river flows through the old capital of the northern province before it reaches the sea?"


def test_tables_of_equal_tokens_become_arms_of_a_study(tmp_path, capsys):
    """By `path` and `already`, as the guide shows it; where one variant makes others short, it is said."""
    from dipscope.plan import make
    from dipscope.study import Study
    from dipscope.verbs.data_build import build

    path, out = tmp_path / "pool.parquet", tmp_path / "out"
    traces.write(path, make_pool(queries=30, samples=3))
    build(str(path), out, variants="cot,no_cot", workers=1, token_matched=True, tokenizer="organism:XS")
    assert "Matched by tokens" not in capsys.readouterr().err
    made = json.loads((out / "provenance.json").read_text())
    rows = {variant: facts["rows"] for variant, facts in made["variants"].items()}
    assert 0 < rows["cot"] < rows["no_cot"]
    card = (out / "README.md").read_text()
    assert f"the first {rows['cot']} to {rows['no_cot']} questions of one order" in card
    assert "tokens of organism:XS" in card and made["rules"]["tokenizer"] == "organism:XS"
    study = Study.model_validate(
        {
            "study": {"name": "matched"},
            "models": {"tiny": {"organism": "XS"}},
            "datasets": {
                variant: {"path": str(out / f"{variant}.parquet"), "already": variant} for variant in rows
            },
            "recipes": {"r": {"epochs": 1, "batch_size": 4}},
            "runs": {"models": ["tiny"], "datasets": list(rows), "recipes": ["r"]},
            "measure": {"benchmarks": ["organism/sort"]},
        }
    )
    assert [study.variant_of(variant) for variant in rows] == ["cot", "no_cot"]
    prepared = {cell.settings["rows"] for cell in make(study).cells if cell.kind == "prepare"}
    assert prepared == set(rows.values())

    few = {"variants": "cot,answer_only", "workers": 1, "token_matched": True, "tokenizer": "organism:XS"}
    traces.write(path, [Trace(f"{n}", f"q{n}", f"{n}?", response("1", 60), "1") for n in range(30)])
    build(str(path), tmp_path / "few", **few)
    assert (
        "Matched by tokens, cot keeps" in (said := capsys.readouterr().err)
        and "leave answer_only out" in said
    )


def test_contaminated_queries_are_reported_or_dropped(tmp_path):
    rows = [
        replace(r, prompt=f"{QUESTION} Case {r.query}.") if r.query in ("q3", "q5") else r
        for r in make_pool()
    ]
    rows = [
        replace(r, response=r.response.replace("Hence", f"{QUESTION} Hence")) if r.query == "q7" else r
        for r in rows
    ]
    passages = {"rivers": [QUESTION]}
    told, kept = run(tmp_path, rows, passages=passages)
    matched = {m["trace"].partition("-")[0] for m in told["decontamination"]["matches"]}
    assert matched == {"q3", "q5", "q7"} & {t.query for t in kept["cot"]} and matched
    made, clean = run(
        tmp_path, rows, Rules(drop_contaminated=True), passages=passages, out=tmp_path / "clean"
    )
    assert clean["cot"] == [t for t in kept["cot"] if t.query not in matched]
    assert made["counts"]["queries without a benchmark passage"] == len(clean["cot"])


@pytest.mark.parametrize(
    "rules",
    [
        Rules(variants=()),
        Rules(variants=("cot", "cot")),
        Rules(token_matched=True),
        Rules(budget=10),
        Rules(drop_contaminated=True),
    ],
)
def test_contradicting_rules_are_refused_before_anything_is_read(tmp_path, rules):
    with pytest.raises(DipscopeError, match="Correct the rules"):
        building.build(None, tmp_path / "out", rules, None)
    assert not (tmp_path / "out").exists()


def test_the_card_gets_statistics_and_the_provenance_comes_last(tmp_path):
    given = []

    def card(folder, stats, made):
        assert not (folder / provenance.NAME).exists()
        given.append((folder, {variant: s.rows for variant, s in stats.items()}, made["counts"]))

    made, tables = run(tmp_path, make_pool(), card=card)
    assert given == [(tmp_path / "out", {v: len(t) for v, t in tables.items()}, made["counts"])]
    written = json.loads((tmp_path / "out" / provenance.NAME).read_text())
    assert written == {name: value for name, value in made.items() if name != "fresh"}


def test_a_pool_keeps_no_text(tmp_path):
    rows = make_pool()
    found = pool.read(FakeTable(rows))
    assert len(found) == len(rows) and [list(found.queries)[q] for q in found.query] == [
        r.query for r in rows
    ]
    assert set(found.pairs) == {
        (r.gold, final_answer(r.response)) for some in naive(rows, None).values() for r in some if r.gold
    }


def test_a_file_is_built_through_the_real_table_and_verifier(tmp_path):
    from dipscope.scoring.verifiers import Verifiers

    path = tmp_path / "pool.parquet"
    golds = ["\\frac{1}{2}", "x+1", "10,000"]
    said = [["0.5", "\\frac12", "2"], ["1 + x", "x", "x+2"], ["10000", "10001", "9999"]]
    pl.DataFrame(
        {
            "problem": [f"Problem {n}" for n in range(3)],
            "answer": golds,
            "generations": [[response(a) for a in answers] for answers in said],
        }
    ).write_parquet(path)
    table = open_table(Source(path=str(path), columns={"gold": "answer"}))
    with Verifiers(1) as verifiers:
        made = building.build(table, tmp_path / "out", Rules(variants=("cot", "wrong_answer")), verifiers)
    assert made["verification"]["verdicts"] == {"correct": 4, "wrong": 5, "error": 0, "missing": 0}
    right = {final_answer(t.response) for t in traces.read(tmp_path / "out" / "cot.parquet")}
    wrong = {final_answer(t.response) for t in traces.read(tmp_path / "out" / "wrong_answer.parquet")}
    assert len(right) == 3 and right < {"0.5", "\\frac12", "1 + x", "10000"}
    assert len(wrong) == 3 and wrong < {"2", "x", "x+2", "10001", "9999"}


def test_the_verb_builds_and_then_has_nothing_to_do(tmp_path, capsys):
    from dipscope.verbs.data_build import build

    path, out = tmp_path / "pool.parquet", tmp_path / "out"
    traces.write(path, make_pool(queries=8, samples=3))
    for fresh in (True, False):
        build(str(path), out, variants="cot, truncated", rows=3, workers=1, json_=True)
        said = capsys.readouterr()
        shown = json.loads(said.out)
        assert shown["fresh"] is fresh and [v["rows"] for v in shown["variants"].values()] == [3, 3]
        assert "Columns:" in said.err and "verified correct" in said.err
        assert ("Nothing to do" in said.err) is not fresh
    assert (out / "README.md").read_text().startswith("---")
    for wrong, named in (({"variants": "cot,cod"}, "'cod'"), ({"columns": ["prompt"]}, "FIELD=COLUMN")):
        with pytest.raises(DipscopeError, match=named):
            build(str(path), tmp_path / "new", **wrong)


def test_the_real_long_traces(tmp_path, shared):
    """Counts as an independent count has them: a brace counter, and math-verify called directly."""
    from dipscope.scoring.verifiers import Verifiers

    path = shared / "long_cot" / "unireason_sft_math500.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    tails = [r["response"].rpartition("</think>")[2] for r in rows if "</think>" in r["response"]]
    table = open_table(Source(path=str(path), columns={"prompt": "problem", "gold": "gold"}, prefilled=True))
    wanted = ("cot", "no_cot", "answer_only", "short_cot", "shuffled_steps", "truncated")
    with Verifiers(1) as verifiers:
        made = building.build(table, tmp_path / "out", Rules(variants=wanted), verifiers)
    assert made["counts"] == {
        "responses": 500,
        "not cut at the length limit": 500,
        "thinking closed": len(tails),
        "with a final answer": sum(_balanced_box(tail) for tail in tails),
        "with a gold answer": 338,
        "verified correct": 332,
        "queries drawn": 332,
        "queries of which every variant can be made": 332,
    }
    assert len(tails) == 346 and made["counts"]["with a final answer"] == 338
    assert made["verification"]["verdicts"] == {"correct": 332, "wrong": 6, "error": 0, "missing": 0}
    tables = {v: traces.read(tmp_path / "out" / f"{v}.parquet") for v in wanted}
    problems = {r["problem"]: r for r in rows}
    for variant, table in tables.items():
        assert [t.query for t in table] == [t.query for t in tables["cot"]]
        assert all(problems[t.prompt]["gold"] == t.gold for t in table), variant
    for row in tables["cot"]:
        assert row.response == "<think>\n" + problems[row.prompt]["response"]


def _balanced_box(text):
    """Whether any box has as many closing as opening braces, counted by hand."""
    at = text.find("\\boxed{")
    while at >= 0:
        depth = 0
        for character in text[at + 6 :]:
            depth += (character == "{") - (character == "}")
            if not depth:
                return True
        at = text.find("\\boxed{", at + 1)
    return False
