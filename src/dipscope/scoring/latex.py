"""LaTeX answers in one spelling, taken apart at top level. Text in, text out; all in linear time."""

from __future__ import annotations

import re
from typing import NamedTuple

from dipscope.scoring.answers import last_box

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ", "π": r"\pi ",
        "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ",
        "∈": r"\in ", "±": r"\pm ", "√": r"\sqrt ", "°": "", "²": "^2", "³": "^3", "½": r"\frac{1}{2}",
        "θ": r"\theta ", "，": ",", "。": ".", "\u00a0": " ", "\u2009": " ", "€": "", "£": "", "\n": " ",
        "\t": " ",
    }
)  # fmt: skip
_MATH = re.compile(r"\\[\[\]()]|\$|\*\*")  # what switches to mathematics, and markdown's bold
_SIZES = re.compile(r"\\(?:m?left|m?right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])\s*(?:\.(?=\s|\\|[a-zA-Z]))?")
_SPACES = re.compile(
    r"(?<!\\)\\[,;:> ]|~"
    r"|\\q?quad|\\(?:displaystyle|textstyle|limits|rm|bf|it|tt|mathstrut|thinspace)(?![a-zA-Z])"
)
_NOTHING = re.compile(
    r"(?<!\\)\\!|\{\}|\^\s*\\circ\b|\^\s*\{\s*\\circ\s*\}|\\(?:degree|textdegree)(?![a-zA-Z])"
)
_SLASHES = re.compile(r"\\\\(?=[a-zA-Z])")
_SYNONYMS = {
    "leq": r"\le", "leqslant": r"\le", "geq": r"\ge", "geqslant": r"\ge", "neq": r"\ne", "dfrac": r"\frac",
    "tfrac": r"\frac", "cfrac": r"\frac", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]",
    "lparen": "(", "rparen": ")", "lt": "<", "gt": ">", "land": r"\text{and}", "lor": r"\text{or}",
    "lvert": "|", "rvert": "|", "vert": "|", "ldots": r"\dots", "cdots": r"\dots", "ast": "*",
    "varnothing": r"\emptyset", "mathrm": r"\text", "textbf": r"\text", "textit": r"\text", "mbox": r"\text",
    "textrm": r"\text", "textnormal": r"\text", "hbox": r"\text", "mathit": r"\text", "mathsf": r"\text",
    "textsc": r"\text", "operatorname": r"\text", "bold": r"\text", "emph": r"\text", "approxeq": r"\approx",
}  # fmt: skip
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_SYMBOL = re.compile(r"\\([%$&#])")
_FUNCTION = re.compile(
    r"\\text\s*\{\s*(arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|log|ln|exp|gcd|max|min)\s*\}"
)
_BOLD = re.compile(r"\\(?:mathbf|boldsymbol|bm|pmb|vec|overrightarrow)\s*(?:\{\s*(\w+)\s*\}|(?=\\))")
_ORDINAL = re.compile(r"(?<=\d)\s*(?:\^\s*\{?\s*)?\\text\{(?:st|nd|rd|th)\}(?:\s*\})?")
_JOINING = re.compile(r",?\s*(?:\\text\s*\{[ ,]*(?:and|or)[ ,]*\}|(?<![a-zA-Z\\{])(?:and|or)(?![a-zA-Z]))")
_GROUPED = re.compile(r"(?<=\d)\s*\{\s*,\s*\}\s*(?=\d)|(?<=\d),\s*\\!\s*(?=\d)")
_SPACED = re.compile(r"(?<![\d.,])(\d{1,3}(?: \d{3})+)(?!\d| \d)")
_SHORT_FRACTION = re.compile(r"\\frac\s*(\w|\{[^{}]*\})\s*(\w|\{[^{}]*\})")
_SHORT_ROOT = re.compile(r"\\sqrt\s*(\w)")
_BLANKS = re.compile(r"\s+")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_UNIT_TEXT = re.compile(r"(?<=[\w})|%!])\s*\\text\s*\{(?![^{}]*\b[ap]\.?m\b)([^{}\\]*)\}(?:\^\{?\d\}?)?$")
_KEY_BRACES = re.compile(r"([\^_])\{(\w)\}")
_OPEN, _CLOSE = "([{", ")]}"


def clean(text: str) -> str:
    r"""An answer without cosmetics: sizes, spaces, switches, synonyms, shorthand, degrees, joining words.

    Boxes are opened; `and` and `or` become commas; units in `\text{}` stay (see `without_unit`).
    """
    if "\\boxed" in text or "\\fbox" in text:
        text = last_box(text) or text
    text = text.translate(_UNICODE)
    text = _GROUPED.sub(",", text)
    if "\\" in text:
        if not any(block in text for block in ("matrix", "array", "cases")):
            text = _SLASHES.sub(r"\\", text)
        text = _SIZES.sub("", text)
        text = _NOTHING.sub("", text)
        text = _SPACES.sub(" ", text)
        text = _SYMBOL.sub(lambda m: "%" if m[1] == "%" else "" if m[1] == "$" else m[0], text)
        text = _COMMAND.sub(lambda m: _SYNONYMS.get(m[1], m[0]), text)
        text = _FUNCTION.sub(r"\\\1 ", text)
        text = _ORDINAL.sub("", text)
        text = _BOLD.sub(r"\1", text)
        for _ in range(2):  # once more for a fraction in a fraction
            text = _SHORT_FRACTION.sub(lambda m: f"\\frac{_braced(m[1])}{_braced(m[2])}", text)
        text = _SHORT_ROOT.sub(r"\\sqrt{\1}", text)
    text = _MATH.sub("", text)
    text = _JOINING.sub(",", text)
    text = _BLANKS.sub(" ", text).strip(" ,;")
    text = _SPACED.sub(lambda m: m[1].replace(" ", ""), text)
    return text.removesuffix(".").rstrip() if not text.endswith("..") else text


def _braced(part: str) -> str:
    return part if part.startswith("{") else f"{{{part}}}"


def key(text: str) -> str:
    r"""What two cleaned answers share that differ in spaces, needless braces or `\text{}` only."""
    return _KEY_BRACES.sub(r"\1\2", "".join(_TEXT.sub(r"\1", text).split()))


def without_unit(text: str) -> tuple[str, str]:
    r"""A cleaned answer without the `\text{}` unit at its end, and the unit, empty when there is none."""
    found = _UNIT_TEXT.search(text)
    return (text[: found.start()].rstrip(), found[1].strip()) if found else (text, "")


def plain_text(text: str) -> str:
    r"""A cleaned answer with the content of `\text{}` in its place."""
    return _TEXT.sub(r" \1 ", text).strip()


def split_top(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """The parts of a text between separators outside all brackets, and the separators.

    Intervals may close with the other bracket. A bracket too many does not count.
    """
    depth, start, at = 0, 0, 0
    parts: list[str] = []
    between: list[str] = []
    while at < len(text):
        char = text[at]
        if char in _OPEN:
            depth += 1
        elif char in _CLOSE:
            depth = max(0, depth - 1)
        elif depth == 0 and (found := separator.match(text, at)):
            parts.append(text[start:at].strip())
            between.append(found[0])
            at = start = max(found.end(), at + 1)
            continue
        at += 2 if char == "\\" and at + 1 < len(text) and text[at + 1] not in "{}" else 1
    parts.append(text[start:].strip())
    return parts, between


class Group(NamedTuple):
    """Several things in one answer: `kind` is the pair of brackets, `{}` for a set, empty for none."""

    kind: str
    items: list[str]


_COMMA, _SEMICOLON = re.compile(r","), re.compile(r";")


def group(text: str) -> Group | None:
    r"""The tuple, interval, set or list that a cleaned answer is; None when it is a single thing.

    At each level semicolons separate before commas do. `a \pm b` is the list of both. Brackets around a
    single thing are no group, but the braces of a set are.
    """
    bare = unwrapped(text)
    if bare is not None:
        brackets, inner = bare
        items = _items(inner)
        if brackets == "{}":
            return Group("{}", [sign for item in items for sign in _signs(item)])
        if len(items) > 1:
            return Group(brackets, items)
        return group(inner) if brackets in ("()", "") else None
    items = [sign for item in _items(text) for sign in _signs(item)]
    return Group("", items) if len(items) > 1 else None


def _items(text: str) -> list[str]:
    items = split_top(text, _SEMICOLON)[0]
    return [i for i in (items if len(items) > 1 else split_top(text, _COMMA)[0]) if i]


def _signs(item: str) -> list[str]:
    if item.count("\\pm") != 1 or "\\mp" in item:
        return [item]
    before, _, after = item.partition("\\pm")
    return [f"{before}+{after}", f"{before}-{after}"]


def unwrapped(text: str) -> tuple[str, str] | None:
    r"""Brackets around the whole of a text, with what they hold; None when there are none.

    The brackets are `()`, `[]`, `(]`, `[)`, `{}` for `\{…\}`, and empty for braces that only group.
    """
    first = 2 if text.startswith("\\{") else 1
    last = 2 if text.endswith("\\}") else 1
    if len(text) < first + last or first != last or text[first - 1] not in _OPEN or text[-1] not in _CLOSE:
        return None
    if (text[first - 1] == "{") != (text[-1] == "}"):
        return None
    depth = 0
    for at in range(first - 1, len(text)):
        depth += (text[at] in _OPEN) - (text[at] in _CLOSE)
        if depth == 0 and at < len(text) - 1:
            return None
    brackets = text[first - 1] + text[-1]
    return "" if brackets == "{}" and first == 1 else brackets, text[first:-last].strip()
