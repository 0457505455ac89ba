"""Gold answers, responses and verdicts that others stored: what the checkers are compared on.

Run as `python tests/stored_outputs.py FOLDER` (the folder of public data) it prints the tables of
docs/verification.md and every residual disagreement.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dipscope.scoring import numeric
from dipscope.scoring.answers import final_answer
from dipscope.scoring.verifiers import Verifiers

SKYTHOUGHT = ("skyt1_aime24_amc23", "skyt1_32b_perturbed_amc23", "base_gemma2_27b_it",
              "base_qwen25_math_7b_math500", "base_llama31_8b")  # fmt: skip


class Row(NamedTuple):
    """One judged answer; `verdict` is None where nobody stored one."""

    source: str
    gold: str
    answer: str | None
    verdict: bool | None


def equivalence_cases(folder: Path) -> list[Row]:
    """Test cases of four libraries. Their texts are whole responses or bare answers."""
    rows = []
    for case in _rows(folder / "math_equiv_cases/cases.jsonl"):
        gold, said = (final_answer(str(case[name])) or str(case[name]) for name in ("gold", "pred"))
        rows.append(Row(case["source"].partition("/")[2], gold, said, case["expected"]))
    return rows


def outputs(folder: Path) -> Iterator[Row]:
    """Responses of models with gold, and the verdict of another grader where one is stored."""
    for row in _rows(folder / "long_cot/unireason_sft_math500.jsonl.gz"):
        yield Row("long_cot", row["gold"], final_answer(row["response"], opened=True), None)
    for name in SKYTHOUGHT:
        for row in _rows(folder / f"skythought_outputs/{name}.jsonl.gz"):
            gold = str(row["gold_raw"] or row["gold"])
            yield Row("skythought_outputs", gold, final_answer(row["response"]), row["score"])
    for row in _rows(folder / "nemo_skills_outputs/output-rs0.jsonl"):
        said = row["predicted_answer"]
        yield Row("nemo_skills_outputs", str(row["expected_answer"]), said, row["symbolic_correct"])
    for row in _rows(folder / "nemo_skills_outputs/openmathinstruct2.jsonl"):
        said = final_answer(row["generated_solution"])
        yield Row("openmathinstruct2", str(row["expected_answer"]), said, None)
    for row in _rows(folder / "qwen_math_cot_100/math_cot_100.jsonl.gz"):
        for response, score in zip(row["response"], row["score"], strict=True):
            yield Row("qwen_math_cot_100", row["answer"], final_answer(response), score)


def _rows(path: Path) -> Iterator[dict]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        yield from map(json.loads, file)


def differing(rows: list[Row], verdicts: list[str]) -> list[tuple[Row, str]]:
    """Rows with an answer whose stored verdict is another, `error` included."""
    found = []
    for row, verdict in zip(rows, verdicts, strict=True):
        other = row.verdict is not None and row.verdict != (verdict == "correct")
        if verdict == "error" or (verdict != "missing" and other):
            found.append((row, verdict))
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    with Verifiers(1) as verifiers:
        for name, rows in (("cases", equivalence_cases(folder)), ("outputs", list(outputs(folder)))):
            verdicts = [j.verdict for j in verifiers.judge((row.gold, row.answer) for row in rows)]
            for source in sorted({row.source for row in rows}):
                counts = Counter(
                    f"stored {row.verdict}, verify {verdict}"
                    for row, verdict in zip(rows, verdicts, strict=True)
                    if row.source == source
                )
                print(name, source, json.dumps(dict(sorted(counts.items()))))
            for row, verdict in dict.fromkeys(differing(rows, verdicts)):
                stored = {True: "correct", False: "wrong", None: "-"}[row.verdict]
                texts = f"{row.gold[-150:]!r} | {row.answer[-250:]!r}"
                print(f"  {row.source}: stored {stored}, verify {verdict}: {texts}")
            distinct = {
                (r.gold, r.answer): v for r, v in zip(rows, verdicts, strict=True) if r.answer is not None
            }
            found = numeric.audit((gold, said, verdict) for (gold, said), verdict in distinct.items())
            counts = f"judges {found.judged} of {found.rows} distinct pairs, differs on"
            rate = f"{found.rate:.4f} ({found.low:.4f} to {found.high:.4f})"
            print(f"{name}: numeric {counts} {len(found.disagreements)}: {rate}")
            for gold, said, verdict in found.disagreements:
                print(f"  numeric differs from {verdict}: {gold!r} | {said!r}")
        print("reasons of errors:", dict(sorted(verifiers.reasons.items())))


if __name__ == "__main__":
    main()
