r"""Multiple choice: `paper/mmlu_pro` and `paper/gpqa_diamond`.

Both protocols ask for a letter in a box. The likelihood twin asks how likely the text of each option is after
"The answer is", whatever the model would have written by itself.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from dipscope.benchmarks.items import Defaults, Source, field, item_id
from dipscope.benchmarks.published import REQUEST, Published
from dipscope.errors import DipscopeError
from dipscope.scoring import choice
from dipscope.scoring.base import MISSING, Benchmark, Domain, Item, Judgement
from dipscope.scoring.choice import LETTERS
from dipscope.scoring.thinking import Response

PREFIX = "The answer is"


class Choice(Published):
    """A question with options in a fixed order; the answer is a letter."""

    domain: Domain = "ood_reasoning"
    rule = "choice/1"

    def made(self, question: str, options: Sequence[str], right: int, key: str) -> Item:
        """An item whose prompt shows the options as the protocol does.

        Args:
            question: its text.
            options: the texts of the options, in the order of their letters.
            right: the place of the right one.
            key: the item's id.
        """
        others = [o for o in dict.fromkeys(options) if o != options[right]]
        return Item(
            key,
            self.prompt(question, options),
            {"letter": LETTERS[right], "options": list(options)},
            options=tuple(f" {option}" for option in (options[right], *others)),
            answer_prefix=PREFIX,
        )

    @abstractmethod
    def prompt(self, question: str, options: Sequence[str]) -> str:
        """The user turn."""

    def judge(self, item: Item, response: Response) -> Judgement:
        """Right when the letter that was read out is the gold one; under `paper` the thinking counts too."""
        if self.protocol == "paper":
            letter = self.paper(response.text)
        else:
            letter = choice.strict(response.answer, item.gold["options"]) if response.closed else None
        return MISSING if letter is None else Judgement.of(letter == item.gold["letter"], letter)

    @abstractmethod
    def paper(self, text: str) -> str | None:
        """The letter that the paper's script reads out of a whole output."""


class MMLUPro(Choice):
    """MMLU-Pro (arXiv 2406.01574): up to ten options, 14 subjects.

    The paper measures about 1,000 of the 12,032 questions and does not say which; here 1,000 are taken by
    hash, unless `items` says otherwise.
    """

    name = "paper/mmlu_pro"
    source = Source(
        "TIGER-Lab/MMLU-Pro",
        "b189ec765aa7ed75c8acfea42df31fdae71f97be",
        "data/test-00000-of-00001.parquet",
        "0e24a191921c2f453518a537a8b2117bd137e7714d4ef1565e9ba06c1ecb9ad8",
        licence="MIT",
    )
    size = 12_032
    defaults = Defaults(items=1000, samples=1, temperature=0.6, top_p=1.0)

    def item(self, row: dict[str, Any]) -> Item:
        """From `question`, `options` and `answer_index`."""
        question, options, right = (
            field(row, k, self.source) for k in ("question", "options", "answer_index")
        )
        if not isinstance(options, list) or not 2 <= len(options) <= len(LETTERS):
            raise DipscopeError(
                "the options are no list",
                self.source.where,
                "Give `path` a file in the layout of that source.",
            )
        return self.made(question, options, int(right), item_id(question, *options, str(right)))

    def prompt(self, question: str, options: Sequence[str]) -> str:
        """Question, an option a line, and what is asked for."""
        shown = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
        return f"Question:\n{question}\nOptions:\n{shown}\n{_request(len(options))}"

    def paper(self, text: str) -> str | None:
        """The first match of the whole output."""
        return choice.paper_mmlu_pro(text)


class GPQADiamond(Choice):
    """GPQA-Diamond (arXiv 2311.12022): four options each, written by experts; access is asked for on the Hub.

    The order of the options follows from a hash of the question and of each option.
    """

    name = "paper/gpqa_diamond"
    source = Source(
        "Idavidrein/gpqa",
        "633f5ee89ab8ad4522a9f850766b73f62147ffdd",
        "gpqa_diamond.csv",
        None,
        gated=True,
        licence="CC BY 4.0; its authors ask not to show examples online",
    )
    size = 198
    defaults = Defaults(items=198, samples=3, temperature=0.6, top_p=0.95)

    def item(self, row: dict[str, Any]) -> Item:
        """From `Question`, `Correct Answer` and `Incorrect Answer 1` to `3`."""
        names = ("Correct Answer", *(f"Incorrect Answer {i}" for i in (1, 2, 3)))
        question = str(field(row, "Question", self.source)).strip()
        answers = [str(field(row, name, self.source)).strip() for name in names]
        key = item_id(question, *answers)
        order = sorted(range(len(answers)), key=lambda i: item_id(key, answers[i], str(i)))
        return self.made(question, [answers[i] for i in order], order.index(0), key)

    def prompt(self, question: str, options: Sequence[str]) -> str:
        """The paper shows the options on one line, `strict` one a line."""
        shown = [f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=False)]
        joined = ", ".join(shown) if self.protocol == "paper" else "\n" + "\n".join(shown)
        return f"Problem: {question}\nOptions: {joined}\n{_request(len(options))}"

    def paper(self, text: str) -> str | None:
        """The last box, else a phrase."""
        return choice.paper_gpqa(text)


def _request(options: int) -> str:
    letters = ", ".join(LETTERS[: options - 1]) + f" or {LETTERS[options - 1]}"
    return f"{REQUEST} Put nothing but the letter of your choice ({letters}) into the box."


BENCHMARKS: dict[str, Callable[..., Benchmark]] = {b.name: b for b in (MMLUPro, GPQADiamond)}
