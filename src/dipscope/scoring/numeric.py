"""An independent check of verdicts: formulas evaluated at fixed points, by a parser of its own.

It judges less than `verify` and says None for the rest, but shares no code with it, so that where both judge
and differ, one of them is at fault. `audit` gives the rate of that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations
from statistics import NormalDist

from dipscope.scoring.arithmetic import Node, Unreadable, Value, parse, uses, value, variables

LONGEST = 600
EXACT, ROUNDED = 1e-9, 1e-6  # relative difference, and with a decimal on one side
SHOWN = 200  # characters of a disagreement's texts
# Pseudo-random, near the positive axis, where roots and logarithms have no cut.
_POINTS = (
    (1.37 + 0.21j, 0.83 - 0.17j, 2.11 + 0.13j, 0.59 + 0.07j, 1.73 - 0.11j, 1.09 + 0.19j),
    (0.71 - 0.09j, 1.91 + 0.23j, 1.23 - 0.15j, 2.39 + 0.05j, 0.47 + 0.03j, 1.57 - 0.12j),
    (2.03 + 0.18j, 1.13 + 0.04j, 0.67 - 0.06j, 1.49 - 0.22j, 0.91 + 0.14j, 0.53 + 0.02j),
    (0.97 - 0.16j, 0.61 + 0.11j, 1.79 + 0.08j, 1.01 + 0.25j, 2.27 - 0.13j, 1.31 + 0.06j),
)
_UNIT = re.compile(
    r"(?<=[\d}%)\w])\s*\\(?:text|mbox|mathrm|textbf|textrm)\s*\{[ a-z./]*\}(?:\^\{?\d\}?)?\.?$"
)
_WORDS = re.compile(
    r"\b(?:and|or)\b|\d\s+[a-zA-Z]{2,}|(?<![\\a-zA-Z{])(?!sqrt|arc|sin|cos|tan|log|pi)[a-zA-Z]{4,}"
)
_THOUSANDS = re.compile(r"-?\d{1,3}(?:\{?,\}?(?:\\!| )*\d{3})+(?:\.\d+)?")
_OTHER = {
    "−": "-", "π": r"\pi ", "√": r"\sqrt ", "×": "*", "·": "*", "≤": r"\le ", "≥": r"\ge ", "∞": r"\infty ",
    "∪": r"\cup ", "°": "", r"\leq": r"\le", r"\geq": r"\ge", r"\leqslant": r"\le", r"\geqslant": r"\ge",
    r"\lbrace": r"\{", r"\rbrace": r"\}", r"\cfrac": r"\frac",
}  # fmt: skip
_SPELLING = re.compile("|".join(map(re.escape, sorted(_OTHER, key=len, reverse=True))) + r"(?![a-zA-Z])")
_SIGN = re.compile(r"\\le(?![a-z])|\\ge(?![a-z])|<=|>=|<|>|=")
_LETTER = re.compile(r"[a-zA-Z]|\\(?:theta|alpha|lambda)|[fgp]\(\w\)|[a-zA-Z]_\w")


@dataclass(frozen=True)
class Audit:
    """How often two checkers disagree.

    Attributes:
        rows: pairs with a verdict of correct or wrong.
        judged: those of them that the second checker judged too.
        disagreements: (gold, answer, first verdict) where it judged otherwise; long texts are cut.
        low: lower end of the 95 % Wilson interval of the rate.
        high: upper end.
    """

    rows: int
    judged: int
    disagreements: tuple[tuple[str, str, str], ...]
    low: float
    high: float

    @property
    def rate(self) -> float:
        """Disagreements as a share of the judged; nan when none was judged."""
        return len(self.disagreements) / self.judged if self.judged else math.nan


def audit(rows: Iterable[tuple[str, str, str]]) -> Audit:
    """Compare verdicts with `equal`.

    Args:
        rows: gold, answer and verdict; those that are neither `correct` nor `wrong` are passed over.
    """
    total = judged = 0
    differing = []
    for gold, answer, verdict in rows:
        if verdict not in ("correct", "wrong"):
            continue
        total += 1
        second = equal(gold, answer)
        if second is None:
            continue
        judged += 1
        if second != (verdict == "correct"):
            differing.append((gold[:SHOWN], answer[:SHOWN], verdict))
    return Audit(total, judged, tuple(differing), *wilson(len(differing), judged))


def wilson(hits: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (E. B. Wilson, JASA 22, 1927); (0, 1) when n is 0.

    Of weighted counts `n` is their effective number, and need not be whole.
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, spread = hits / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def equal(gold: str, answer: str) -> bool | None:
    """Whether an answer equals the gold; None where this checker cannot say. Work is bounded."""
    if len(gold) > LONGEST or len(answer) > LONGEST:
        return None
    try:
        return _equal(_plain(gold), _plain(answer))
    except (Unreadable, RecursionError):
        return None


def _plain(text: str) -> str:
    text = text.strip().removeprefix("\\$").strip("$").removeprefix("\\(").removesuffix("\\)").strip()
    if _WORDS.search(text):
        raise Unreadable("words")
    text = _SPELLING.sub(lambda m: _OTHER[m[0]], text).replace("\\left", "").replace("\\right", "")
    text = re.sub(r"\\[,;:! ]|\\q?quad", " ", text) if not _THOUSANDS.fullmatch(text) else text
    text = _UNIT.sub("", text.rstrip(".").strip()).strip()
    return re.sub(r"[{},\\! ]", "", text) if _THOUSANDS.fullmatch(text) else text


def _equal(gold: str, answer: str) -> bool | None:
    one, other = _ranges(gold), _ranges(answer)
    if one is not None or other is not None:
        if one is None or other is None:
            return None
        return _all(one, other, ordered=False)
    kinds, items = zip(*(_items(text) for text in (gold, answer)), strict=True)
    if len(items[0]) == 1 and len(items[1]) == 1:
        return _single(items[0][0], items[1][0])
    if len(items[0]) != len(items[1]):
        # Every part has to be readable before a count decides.
        for side in items:
            for item in side:
                _sides(item)
        return False
    if "set" in kinds and "point" in kinds:
        return None
    return _all(items[0], items[1], ordered=kinds[0] == "point")


def _all(one: Sequence[str], other: Sequence[str], *, ordered: bool) -> bool | None:
    if len(one) != len(other):
        return None
    if ordered:
        found = [_equal(a, b) for a, b in zip(one, other, strict=True)]
        return False if False in found else None if None in found else True
    if len(one) > 6:
        return None
    table = [[_equal(a, b) for b in other] for a in one]
    if any(cell is None for row in table for cell in row):
        return None
    return any(all(table[i][j] for i, j in enumerate(order)) for order in permutations(range(len(one))))


def _items(text: str) -> tuple[str, list[str]]:
    """The things that top-level commas separate, without brackets around them all; and what they form."""
    kind = ""
    if text.startswith("\\{") and text.endswith("\\}"):
        kind, text = "set", text[2:-2]
    elif text.startswith(("(", "[")) and text.endswith((")", "]")) and len(_cut(text[1:-1], ",")) > 1:
        if text[0] + text[-1] != "()" or not _closes_at_end(text):
            if _closes_at_end(text):
                raise Unreadable("an interval or a vector")
        else:
            kind, text = "point", text[1:-1]
    parts = [part.strip() for part in _cut(text, ",")]
    expanded = []
    for part in parts:
        if "\\mp" in part or part.count("\\pm") > 1:
            raise Unreadable("signs")
        expanded += [part.replace("\\pm", "+"), part.replace("\\pm", "-")] if "\\pm" in part else [part]
    return kind, expanded


def _closes_at_end(text: str) -> bool:
    depth = 0
    for at, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return at == len(text) - 1
    return False


def _cut(text: str, sign: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char == sign and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def _ranges(text: str) -> list[str] | None:
    r"""Ends and brackets of the intervals in a text as pieces to compare; None when it is no range."""
    if "\\in" in text and "\\infty" not in text.partition("\\in")[2][:4]:
        name, _, rest = text.partition("\\in ")
        if rest and _LETTER.fullmatch(name.strip()):
            text = rest.strip()
    pieces = text.split("\\cup")
    if len(pieces) == 1 and not _SIGN.search(text.replace("=", "")):
        closed = text[:1] + text[-1:] in ("[)", "(]", "[]") and len(_cut(text[1:-1], ",")) == 2
        if not (closed and _closes_at_end(text)) and "\\infty" not in text:
            return None
    return [_interval(piece.strip()) for piece in pieces]


def _interval(text: str) -> str:
    """One interval, or one inequality in one variable, as a point of its ends and openness."""
    if text[:1] in "([" and text[-1:] in ")]" and len(ends := _cut(text[1:-1], ",")) == 2:
        low, high, brackets = ends[0], ends[1], (text[0], text[-1])
    else:
        signs, parts = _SIGN.findall(text), [part.strip() for part in _SIGN.split(text)]
        if "=" in signs or not signs or len(parts) > 3:
            raise Unreadable("no interval")
        if signs[0] in (">", ">=", "\\ge"):
            parts.reverse()
            signs.reverse()
            turned = {">": "<", ">=": "<=", "\\ge": "\\le"}
            signs = [turned.get(sign, "") for sign in signs]
        if len(parts) == 2:
            left = bool(_LETTER.fullmatch(parts[0]))
            parts = ["-\\infty", *parts] if left else [*parts, "\\infty"]
            signs = ["<", *signs] if left else [*signs, "<"]
        if not _LETTER.fullmatch(parts[1]) or any(sign not in ("<", "<=", "\\le") for sign in signs):
            raise Unreadable("no interval")
        low, high = parts[0], parts[2]
        brackets = ("(" if signs[0] == "<" else "[", ")" if signs[1] == "<" else "]")
    ends = [end.replace("+\\infty", "\\infty").replace("\\infty", "(10^{37})") for end in (low, high)]
    return f"({ends[0]},{ends[1]},{int(brackets[0] == '(')},{int(brackets[1] == ')')})"


def _sides(text: str) -> list[Node]:
    """The trees of a formula, or of the two sides of an equation, the side that is only a name left out."""
    exact, _, about = text.partition("\\approx")
    if _LETTER.fullmatch(exact.strip()):
        exact = about
    parts = [part.strip() for part in re.split(r"(?<![<>!])=", exact)]
    if len(parts) > 2:
        parts = [parts[0], parts[-1]]
    if len(parts) == 2 and _LETTER.fullmatch(parts[0]):
        parts = parts[1:]
    return [parse(part) for part in parts]


def _single(gold: str, answer: str) -> bool | None:
    one, other = _sides(gold), _sides(answer)
    names = [text.partition("=")[0].strip() for text in (gold, answer) if "=" in text]
    if len(names) == 2 and len(one) == len(other) == 1 and names[0] != names[1]:
        return None  # x = 3 against y = 3: not a question of values
    if any(uses(a, "log") != uses(b, "log") for a in one for b in other):
        return None  # the base of a plain log is anybody's guess
    if len(one) == 2 and len(other) == 2:
        return _proportional(("-", *one), ("-", *other))
    if len(one) == 2 or len(other) == 2:
        return None
    rounded = "." in gold or "." in answer
    if "%" in gold or "%" in answer:
        return None  # whether percent counts is a convention
    return _same(one[0], other[0], ROUNDED if rounded else EXACT)


def _values(one: Node, other: Node) -> list[tuple[Value, Value]]:
    names = sorted(variables(one) | variables(other))
    if len(names) > len(_POINTS[0]):
        raise Unreadable("too many variables")
    points = [dict(zip(names, point, strict=False)) for point in _POINTS[: 4 if names else 1]]
    return [(value(one, at), value(other, at)) for at in points]


def _same(one: Node, other: Node, close: float) -> bool:
    return all(_near(a, b, close) for a, b in _values(one, other))


def _near(a: Value, b: Value, close: float) -> bool:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b or (close == ROUNDED and abs(a - b) <= Fraction(close) * max(abs(a), abs(b)))
    a, b = complex(a), complex(b)
    return abs(a - b) <= close * max(abs(a), abs(b)) or max(abs(a), abs(b)) < 1e-12


def _proportional(one: Node, other: Node) -> bool | None:
    """Whether two sides' differences are multiples of each other; unequal zero sets cannot be told."""
    pairs = [(complex(a), complex(b)) for a, b in _values(one, other)]
    if len(pairs) < 2 or any(abs(a) < 1e-9 or abs(b) < 1e-9 for a, b in pairs):
        return None
    ratios = [b / a for a, b in pairs]
    return True if all(_near(ratios[0], ratio, EXACT) for ratio in ratios) else None
