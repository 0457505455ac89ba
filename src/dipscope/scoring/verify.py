"""Is an answer right? Gold and answer compared in layers, the cheap ones first, math-verify last.

`verify` works in the process it is called in and its time is not bounded: `verifiers.Verifiers` does the same
in worker processes that can be killed.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any

from dipscope.scoring import latex, numbers, relations, symbolic
from dipscope.scoring.answers import last_box
from dipscope.scoring.base import Judgement, Verdict
from dipscope.scoring.symbolic import Undecided

VERSION = f"verify/2+math-verify-{version('math-verify')}"
LONGEST = 4_000  # characters of a gold or an answer, unless it is one long number
SHOWN = 500  # characters of an answer that a judgement keeps
DEEPEST = 6  # groups inside groups
MANY, HARD = 200, 24  # items of a group; items that have to be tried against each other

Finding = tuple[Verdict, str]  # a verdict, and for `error` its reason

_FORMULA = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_MATHEMATICS = re.compile(r"\d|[=<>^+]|\\(?!text)")
_NAME = re.compile(r"[a-zA-Z](?:_\w)?(?:\([a-zA-Z]\))?")
_FIGURE = re.compile(r"(?<![\w.,])-?\d[\d,]*(?:\.\d+)?(?![\d^/])")
_OBJECT = re.compile(r"\s*\{\s*\"")
_DIGITS = re.compile(r"[-+]?[\d,]+")
_WORD = re.compile(r"[a-zA-Z]{2,}")
_BASE = re.compile(r"([0-9][0-9A-Fa-f]*|[A-F][0-9A-F]*[0-9][0-9A-F]*)(?:_\{?(\d+)\}?)?")
_RATIO = re.compile(r"\d{1,9}(?::\d{1,9})+")
_CHOICE = re.compile(r"\(?([A-J])\)?|\(([A-J])\) .*")
_CHOSEN = re.compile(r"\(([A-J])\).*|([A-J])[.:)](?: .*)?|\(?([A-J])\)?")
_MATRIX = re.compile(r"\\begin\{([pbBv]?)(?:small)?matrix\}(.*)\\end\{\1(?:small)?matrix\}")
_ROW = re.compile(r"\\\\(?:\[[^\]]*\])?")


def verify(gold: str, answer: str) -> Judgement:
    """Judge an answer against the gold answer.

    Args:
        gold: LaTeX, a number or text; or a Countdown problem as a JSON object with `numbers` and `target`.
        answer: what `answers.final_answer` gives.

    Returns:
        `correct` or `wrong`; `error` where no verdict can be reached (too large, not understood); for
        Countdown `missing` where the answer is no expression. Time and memory are not bounded here.
    """
    return judgement(decide(gold, answer), answer)


def judgement(found: Finding, answer: str) -> Judgement:
    """A finding as the judgement of an answer."""
    verdict = found[0]
    score = None if verdict == "error" else float(verdict == "correct")
    return Judgement(verdict, score, answer[:SHOWN])


def decide(gold: str, answer: str) -> Finding:
    """The verdict, and the reason of an `error`; see `verify`."""
    try:
        if (problem := _countdown(gold)) is not None:
            return _countdown_verdict(problem, answer), ""
        return ("correct" if _decide(gold, answer) else "wrong"), ""
    except Undecided as undecided:
        return "error", str(undecided)
    except (RecursionError, MemoryError) as error:
        return "error", "nested too deep" if isinstance(error, RecursionError) else "out of memory"


def _decide(gold: str, answer: str) -> bool:
    if gold.strip() == answer.strip():
        return True
    if len(gold) > LONGEST or len(answer) > LONGEST:
        return _equal_long(gold.strip(" $\n"), answer.strip(" $\n"))
    wanted, said = latex.clean(gold), latex.clean(_from_sentence(gold, answer))
    if not wanted:
        raise Undecided("the gold is empty")
    # An answer of which nothing is left, such as "# # #", is an answer, and wrong.
    return bool(said) and _equal(wanted, said, 0)


def _from_sentence(gold: str, answer: str) -> str:
    """The one formula of a sentence, or its one number if a number is wanted; else the answer unchanged."""
    outside = _FORMULA.sub(" ", answer)
    if len(_WORD.findall(outside)) < 2 or "\\" in outside or not _MATHEMATICS.search(gold):
        return answer
    found: list[str] = [next(filter(None, groups)) for groups in _FORMULA.findall(answer)]
    found = [formula for formula in found if not _NAME.fullmatch(formula.strip())]
    if len(found) == 1:
        return found[0]
    figures: list[str] = _FIGURE.findall(outside)
    wanted = numbers.number(latex.clean(gold))
    return figures[0] if not found and len(figures) == 1 and wanted is not None else answer


def _equal_long(gold: str, answer: str) -> bool:
    """Long integers as text; whatever else is long stays undecided."""
    for whose, text in (("gold", gold), ("answer", answer)):
        if len(text) > LONGEST and not _DIGITS.fullmatch(text):
            raise Undecided(f"the {whose} is too long")
    one, other = numbers.number(latex.clean(gold)), numbers.number(latex.clean(answer))
    if one is None or other is None:
        raise Undecided("a long number against a formula")
    return numbers.equal(one, other)


def _equal(gold: str, answer: str, depth: int) -> bool:
    """Whether two cleaned texts say the same, layer by layer."""
    if latex.key(gold) == latex.key(answer):
        return True
    if depth > DEEPEST:
        raise Undecided("nested too deep")
    one, other = numbers.number(gold), numbers.number(answer)
    if one is None and other is not None:
        one = numbers.number(numbers.decimal_comma(gold))
    elif one is not None and other is None:
        other = numbers.number(numbers.decimal_comma(answer))
    if one is not None and other is not None:
        return numbers.equal(one, other)
    for layer in (_in_base, _as_ratio, _as_text, _as_matrices, _as_intervals, _as_groups, _as_equations):
        if (decided := layer(gold, answer, depth)) is not None:
            return decided
    formulas = [latex.without_unit(relations.without_estimate(text))[0] for text in (gold, answer)]
    if formulas != [gold, answer]:
        return _equal(formulas[0], formulas[1], depth + 1)
    return symbolic.equal(gold, answer)


def _in_base(gold: str, answer: str, depth: int) -> bool | None:
    """Numerals with a base as subscript; where only one side names the base, the digits decide."""
    wanted, said = _BASE.fullmatch(latex.key(gold)), _BASE.fullmatch(latex.key(answer))
    if wanted is None or said is None or not (wanted[2] or said[2]):
        return None
    same_base = not (wanted[2] and said[2]) or wanted[2] == said[2]
    return wanted[1].upper() == said[1].upper() and same_base


def _as_ratio(gold: str, answer: str, depth: int) -> bool | None:
    """`7:32` as a ratio, `4:05` as a time."""
    wanted, said = _RATIO.fullmatch(latex.key(gold)), _RATIO.fullmatch(latex.key(answer))
    if wanted is None or said is None:
        return None
    one, other = ([int(n) for n in found[0].split(":")] for found in (wanted, said))
    if len(one) != len(other) or 0 in one or 0 in other or ":0" in wanted[0] + said[0]:
        return one == other
    return all(a * other[0] == b * one[0] for a, b in zip(one, other, strict=True))


def _as_text(gold: str, answer: str, depth: int) -> bool | None:
    wanted, said = latex.plain_text(gold), latex.plain_text(answer)
    if choice := _CHOICE.fullmatch(wanted):
        chosen = _CHOSEN.fullmatch(said)
        if chosen:
            return (choice[1] or choice[2]) in chosen.groups()
        return None if len(said) == 1 or not wanted.startswith("(") else False
    if "\\text" in gold and _tight(wanted) == _tight(said):
        return True
    if not _WORD.search(wanted) or _is_formula(gold):
        return None
    return _letters(wanted) == _letters(said)


def _is_formula(gold: str) -> bool:
    """Whether words in a gold can be a product of variables or stand beside mathematics."""
    outside = latex.plain_text(gold) if "\\text" in gold else gold
    if re.search(r"\\(?!text)|[=<>^_+*/|]", outside):
        return True
    if "\\text" in gold:
        return False
    return max(map(len, re.findall(r"[a-zA-Z]+", gold))) <= 2 or bool(re.search(r"\d|sqrt|pi", gold))


def _tight(text: str) -> str:
    return re.sub(r"\.(?!\d)|[\s,]", "", text).lower()


def _letters(text: str) -> str:
    return re.sub(r"[^\w:]", "", text).lower()


def _as_intervals(gold: str, answer: str, depth: int) -> bool | None:
    wanted, said = relations.intervals(gold), relations.intervals(answer)
    if wanted is None and said is None:
        return None
    if wanted is not None and said is not None and wanted[1] and said[1] and wanted[1] != said[1]:
        return None
    one = [gold] if wanted is None else wanted[0]
    other = [answer] if said is None else said[0]
    if (one, other) == ([gold], [answer]) or len(one) != len(other):
        return None
    try:
        # Unequal pieces may still have equal unions, or relations be equal in another way.
        return _unordered(one, other, depth) or None
    except Undecided:
        return None


def _as_groups(gold: str, answer: str, depth: int) -> bool | None:
    wanted, said = latex.group(gold), latex.group(answer)
    if wanted is None and said is None:
        return None
    wanted = wanted or latex.Group("", [gold])
    said = said or latex.Group("", [answer])
    if len(wanted.items) != len(said.items):
        return _flattened(wanted, said, depth)
    if wanted.kind in ("()", "[]", "(]", "[)"):
        loose = len(wanted.items) != 2  # longer than an interval: the brackets of a vector
        if said.kind not in ("", wanted.kind) and not (loose or (wanted.kind == "()" and said.kind == "{}")):
            return False
        return _ordered(wanted.items, said.items, depth)
    if said.kind in ("(]", "[)"):
        return False
    return _unordered(wanted.items, said.items, depth)


def _flattened(gold: latex.Group, answer: latex.Group, depth: int) -> bool | None:
    """Groups of unequal length, one of which may be a list of lists, repeat items, or be an equation's side.

    `a=1,b=2;a=3,b=4` is a list of lists; `2, 3, 3` is `2, 3`.
    """
    flat = [[part for item in side.items for part in _list_items(item)] for side in (gold, answer)]
    if flat != [gold.items, answer.items] and len(flat[0]) == len(flat[1]):
        return _unordered(flat[0], flat[1], depth)
    if gold.kind in ("", "{}"):
        once = [list({latex.key(item): item for item in side.items}.values()) for side in (gold, answer)]
        if len(once[0]) == len(once[1]):
            return _unordered(once[0], once[1], depth)
    alone = [side.items[0] for side in (gold, answer) if len(side.items) == 1]
    return None if any(relations.equation(item) for item in alone) else False


def _list_items(item: str) -> list[str]:
    found = latex.group(item)
    return found.items if found is not None and found.kind == "" else [item]


def _as_equations(gold: str, answer: str, depth: int) -> bool | None:
    wanted, said = relations.equation(gold), relations.equation(answer)
    if wanted is None and said is None:
        return None
    if wanted is None:
        assert said is not None
        return _equal(gold, said.right, depth + 1)
    if said is None:
        return _equal(wanted.right, answer, depth + 1) if wanted.named else False
    if wanted.named and said.named and relations.same_name(wanted.left, said.left):
        return _equal(wanted.right, said.right, depth + 1)
    return False if relations.unrelated(wanted, said) else None


def _as_matrices(gold: str, answer: str, depth: int) -> bool | None:
    wanted, said = _MATRIX.fullmatch(gold), _MATRIX.fullmatch(answer)
    if wanted is None or (said is None and (point := latex.group(answer)) is None):
        return None
    rows = [r.split("&") for r in _ROW.split(wanted[2]) if r.strip()]
    if said is None:
        assert point is not None
        others = [[item] for item in point.items]  # a column written as a point
    else:
        others = [r.split("&") for r in _ROW.split(said[2]) if r.strip()]
    if [len(r) for r in rows] != [len(r) for r in others]:
        return False
    cells = [[latex.clean(cell) for row in side for cell in row] for side in (rows, others)]
    return _ordered(cells[0], cells[1], depth)


def _ordered(gold: list[str], answer: list[str], depth: int) -> bool:
    """All pairs equal. One that differs decides, whatever the others are."""
    undecided: Undecided | None = None
    for wanted, said in zip(gold, answer, strict=True):
        try:
            if not _equal(wanted, said, depth + 1):
                return False
        except Undecided as reason:
            undecided = reason
    if undecided is not None:
        raise undecided
    return True


def _unordered(gold: list[str], answer: list[str], depth: int) -> bool:
    """Each item of the gold equals another item of the answer."""
    if len(gold) > MANY:
        raise Undecided("too many items")
    left = dict(enumerate(answer))
    hard: list[str] = []
    for wanted in gold:
        at = next((i for i, said in left.items() if latex.key(said) == latex.key(wanted)), None)
        if at is None:
            hard.append(wanted)
        else:
            del left[at]
    if len(hard) > HARD:
        raise Undecided("too many items")
    for wanted in hard:
        undecided: Undecided | None = None
        for index, said in left.items():
            try:
                if _equal(wanted, said, depth + 1):
                    del left[index]
                    break
            except Undecided as reason:
                undecided = reason
        else:
            if undecided is not None:
                raise undecided
            return False
    return True


def _countdown(gold: str) -> Any:
    if len(gold) > LONGEST or not _OBJECT.match(gold):
        return None
    from dipscope.scoring.countdown.problem import Problem

    try:
        return Problem.from_gold(gold)
    except (ValueError, KeyError, TypeError, OverflowError):
        return None  # some other JSON, compared as text


def _countdown_verdict(problem: Any, answer: str) -> Verdict:
    """As `countdown.judge` has it: the numbers used as the problem says, and the target reached."""
    from dipscope.scoring.countdown.check import judge

    return judge(problem, (last_box(answer) or answer) if len(answer) <= LONGEST else None).verdict
