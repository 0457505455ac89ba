"""Equations and inequalities as answers: their sides, what they name, inequalities as intervals."""

from __future__ import annotations

import re
from typing import NamedTuple

from dipscope.scoring.latex import group, key, split_top

_EQUALS = re.compile(r"(?<![<>!:])=(?!=)")
_ABOUT = re.compile(r"\\(?:approx|simeq|sim|doteq)(?![a-zA-Z])")
_SEPARATOR = re.compile(r"[,;]")
_ORDER = re.compile(r"\\[lg]e(?![a-zA-Z])|<=|>=|<|>")
_UNEQUAL = re.compile(r"\\ne(?![a-zA-Z])|!=")
_IN = re.compile(r"\\in(?![a-zA-Z])")
_UNION = re.compile(r"\\cup(?![a-zA-Z])")
_GREEK = "alpha|beta|gamma|delta|theta|lambda|mu|phi|rho|sigma|omega|ell"
_LETTER = rf"(?:[a-zA-Z]|\\(?:{_GREEK})(?![a-zA-Z]))"
_NAME = re.compile(
    rf"(?:\\(?:text|angle|triangle|overline|frac|cos|sin|tan|log|ln)(?![a-z])|[{{}}()\[\]/|:]|{_LETTER}|'"
    r"|[_^]\{?-?\w+\}?|\^\\prime|[, ])+"
)
_VARIABLE = re.compile(rf"{_LETTER}(?:_\{{?\w+\}}?)?'?(?:\({_LETTER}\))?")
_REALS = re.compile(
    r"\\mathbb\{?R\}?|\\R|\\text\{?R\}?"
    r"|(?:all )?real(?:numbers?|s)|\\text\{ ?(?:all )?real(?: numbers?|s) ?\}"
)


class Equation(NamedTuple):
    """The two outer sides of an equation; `named` when the left one is the name of what is asked for."""

    left: str
    right: str
    named: bool


def equation(text: str) -> Equation | None:
    r"""The equation that a cleaned answer is, at top level; None when it is none.

    Of a chain `x = 1 + 1 = 2` the ends stay. What follows `\approx` is dropped, unless only a name precedes.
    """
    if len(split_top(text, _SEPARATOR)[0]) > 1:
        return None  # several equations
    exact, about = split_top(text, _ABOUT)
    parts = split_top(exact[0], _EQUALS)[0]
    if about and (len(parts) == 1 and _is_name(parts[0])):
        parts.append(exact[1])
    parts = [part for part in parts if part]
    if len(parts) < 2:
        return None
    if _is_name(parts[-1]) and not _is_name(parts[0]):
        return Equation(parts[-1], parts[0], True)
    return Equation(parts[0], parts[-1], _is_name(parts[0]))


def without_estimate(text: str) -> str:
    r"""A cleaned answer without the `\approx …` after it, or without the sign that it starts with."""
    exact, about = split_top(text, _ABOUT)
    return (exact[0] or exact[1]) if about else text


def same_name(one: str, other: str) -> bool:
    """Whether two left sides name the same thing: `y` and `f(x)` do, `x` and `y` do not."""
    one, other = key(one), key(other)
    functions = ["(" in name for name in (one, other)]
    if one == other or (all(functions) and one.partition("(")[0] == other.partition("(")[0]):
        return True
    return any(functions) and "y" in (one, other)


def unrelated(one: Equation, other: Equation) -> bool:
    """Whether two equations name different variables, neither of which the other equation mentions."""
    names = [key(side.left) for side in (one, other)]
    variables = all(_VARIABLE.fullmatch(name) for name in names)
    if names[0] == names[1] or not (one.named and other.named and variables):
        return False
    return names[0][0] not in other.right and names[1][0] not in one.right


def _is_name(text: str) -> bool:
    return len(text) <= 60 and bool(_NAME.fullmatch(text.strip()))


def intervals(text: str) -> tuple[list[str], str] | None:
    r"""Intervals and sets whose union a cleaned answer is, with the variable that inequalities are in.

    `x < 1, x \ge 2` becomes `(-\infty,1)` and `[2,\infty)`; a union is split; `x \in` is dropped. None when
    the text is neither inequalities in one variable nor a union nor all reals.
    """
    variable = ""
    parts, inside = split_top(text, _IN)
    if inside and len(parts) == 2 and _VARIABLE.fullmatch(key(parts[0])):
        variable, text = key(parts[0]), parts[1]
    pieces = split_top(text, _UNION)[0]
    found: list[str] = []
    if len(pieces) > 1 or variable:
        for piece in pieces:
            made = _inequality(piece)
            found += made[0] if made else [_REALS.sub(r"(-\\infty,\\infty)", piece)]
        return found, variable
    if _REALS.fullmatch(key(text)) or _REALS.fullmatch(text):
        return [r"(-\infty,\infty)"], ""
    several = group(text)
    for part in several.items if several is not None and several.kind == "" else [text]:
        made = _inequality(part)
        if made is None or (variable and made[1] != variable):
            return None
        found += made[0]
        variable = made[1]
    return found, variable


def _inequality(text: str) -> tuple[list[str], str] | None:
    unequal = split_top(text, _UNEQUAL)[0]
    if len(unequal) == 2 and _VARIABLE.fullmatch(key(unequal[0])):
        return [rf"(-\infty,{unequal[1]})", rf"({unequal[1]},\infty)"], key(unequal[0])
    parts, signs = split_top(text, _ORDER)
    if len(parts) not in (2, 3) or not all(parts):
        return None
    up = [sign in ("<", "<=", r"\le") for sign in signs]
    strict = [sign in "<>" for sign in signs]
    if len(parts) == 3:
        if up[0] != up[1] or not _VARIABLE.fullmatch(key(parts[1])):
            return None
        low, high = (0, 2) if up[0] else (2, 0)
        first, last = (strict[0], strict[1]) if up[0] else (strict[1], strict[0])
        made = f"{'(' if first else '['}{parts[low]},{parts[high]}{')' if last else ']'}"
        return [made], key(parts[1])
    variable, bound, upper = parts[0], parts[1], up[0]
    if not _VARIABLE.fullmatch(key(variable)):
        variable, bound, upper = bound, variable, not upper
    if not _VARIABLE.fullmatch(key(variable)) or _VARIABLE.fullmatch(key(bound)):
        return None
    opening, closing = ("(", ")") if strict[0] else ("[", "]")
    made = rf"(-\infty,{bound}{closing}" if upper else rf"{opening}{bound},\infty)"
    return [made], key(variable)
