"""Harmful requests and harmless ones that look alike: HEx-PHI, StrongREJECT, HarmBench, XSTest.

Without a judge the verdict is that of the offline refusal scorer, whose name every such record carries. With
`dipscope judge` it is that of the rubric which each benchmark names. A refusal of a harmful request is right,
and so is an answer to a harmless one; a text that says nothing is neither.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any

from dipscope.benchmarks.items import Defaults, Source, field, item_id, rows
from dipscope.benchmarks.published import Published
from dipscope.judging.rubrics import Case
from dipscope.judging.store import View
from dipscope.scoring import refusal
from dipscope.scoring.base import Domain, Item, Judgement
from dipscope.scoring.thinking import Response


class Requests(Published):
    """Requests of which refusing is right, or is not.

    Attributes:
        rubric: what a judge is asked about the responses.
        harmful: whether refusing is right.
    """

    domain: Domain = "safety"
    rule: str = refusal.VERSION
    rubric: str
    harmful: bool = True
    max_tokens: int = 16_384
    defaults: Defaults = Defaults(samples=1, temperature=0.6)

    @property
    def view(self) -> View:
        """What is judged: the answer; under the paper's protocol all of it where the thinking never ends."""
        return "paper" if self.protocol == "paper" else "answer"

    @cached_property
    def _items(self) -> list[Item]:
        found = (self.request(row) for row in rows(self.source, self.path))
        return [self._item(*request) for request in found if request is not None]

    def item(self, row: dict[str, Any]) -> Item:
        """The request of a row that has one."""
        request = self.request(row)
        assert request is not None
        return self._item(*request)

    def _item(self, asked: str, cluster: str) -> Item:
        return Item(item_id(self.name, asked), asked, {"harmful": self.harmful}, cluster)

    @abstractmethod
    def request(self, row: dict[str, Any]) -> tuple[str, str] | None:
        """The request of a row and its cluster; None where the row is not for this benchmark."""

    def case(self, item: Item, text: str) -> Case:
        """What a judge is asked about a response."""
        return Case(item.prompt, text, self.harmful)

    def judge(self, item: Item, response: Response) -> Judgement:
        """The offline scorer's verdict on what a judge would be shown."""
        whole = self.view == "paper" and not response.closed
        return refusal.judgement(refusal.kind(response.text if whole else response.answer), self.harmful)


class HexPhi(Requests):
    """Requests that break usage policies (Qi et al. 2023), gated: they need access of one's own.

    The published files have one request a line and no header, so that what a reader of tables takes for the
    column's name is a request too. For `path` they can simply be put one after the other.
    """

    name = "paper/hex_phi"
    source = Source(
        "LLM-Tuning-Safety/HEx-PHI", None, "category_*.csv", None, True, "HEx-PHI licence agreement"
    )
    size = 300
    rubric = "harm"

    @cached_property
    def _items(self) -> list[Item]:
        asked: dict[str, None] = {}
        for row in rows(self.source, self.path):
            if (request := self.request(row)) is not None:
                asked[request[0]] = None
                continue
            ((header, text), *more) = row.items()
            if more or " " not in header.strip():  # a name, and none that is known
                field(row, "instruction", self.source)
            asked[header.strip()] = asked[str(text).strip()] = None
        return [self._item(text, "") for text in asked if text]

    def request(self, row: dict[str, Any]) -> tuple[str, str] | None:
        """The request of a row with named columns."""
        named = next((row[n] for n in ("instruction", "prompt") if n in row), None)
        return None if named is None else (str(named).strip(), "")


class StrongReject(Requests):
    """Forbidden prompts of StrongREJECT (Souly et al. 2024)."""

    name = "public/strongreject"
    source = Source("walledai/StrongREJECT", None, "data/*.parquet", None, True, "MIT")
    size = 313
    rubric = "strongreject"

    def request(self, row: dict[str, Any]) -> tuple[str, str]:
        """The forbidden prompt, by its name in the authors' file or in the Hub's copy."""
        name = "prompt" if "prompt" in row else "forbidden_prompt"
        return str(field(row, name, self.source)).strip(), ""


class HarmBench(Requests):
    """Behaviours of HarmBench (Mazeika et al. 2024) without those on copyright, which no rubric can tell.

    A behaviour with a context is asked after it.
    """

    name = "public/harmbench"
    source = Source("walledai/HarmBench", None, "standard/*.parquet", None, True, "MIT")
    size = 300
    rubric = "harm"

    def request(self, row: dict[str, Any]) -> tuple[str, str] | None:
        """The behaviour, from the authors' file (all kinds) or the Hub's copy (the standard ones)."""
        if "prompt" in row:
            return str(row["prompt"]).strip(), ""
        if field(row, "FunctionalCategory", self.source) == "copyright":
            return None
        context = str(row.get("ContextString") or "").strip()
        behaviour = str(field(row, "Behavior", self.source)).strip()
        return f"{context}\n\n---\n\n{behaviour}" if context else behaviour, context and item_id(context)


class XSTest(Requests):
    """The unsafe half of XSTest (Röttger et al. 2024); the safe half is `public/xstest_benign`."""

    name = "public/xstest"
    source = Source(
        "Paul/XSTest",
        "f600c994b256f12867dfa5b3eb3d545a3e62f8b5",
        "xstest_prompts.csv",
        "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a",
        False,
        "CC BY 4.0",
    )
    size = 200
    rubric = "refusal"

    def request(self, row: dict[str, Any]) -> tuple[str, str] | None:
        """The prompt of a row of this half."""
        if (field(row, "label", self.source) == "unsafe") != self.harmful:
            return None
        names = ("prompt", "type", "focus")
        asked, kind, focus = (str(field(row, name, self.source)).strip() for name in names)
        return asked, f"{kind.removeprefix('contrast_')}: {focus}"


class XSTestBenign(XSTest):
    """The safe half of XSTest: requests that only look harmful."""

    name = "public/xstest_benign"
    size = 250
    harmful = False


BENCHMARKS: dict[str, Callable[..., Published]] = {
    b.name: b for b in (HexPhi, StrongReject, HarmBench, XSTest, XSTestBenign)
}
