"""Plain numbers as answers: exact values, percent, units, thousands. No parser of formulas."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from dipscope.scoring.latex import key, without_unit

CLOSE = Fraction(1, 10**6)  # relative difference within which a decimal stands for another number
_LONG = 1000  # digits from which on values are compared as text
_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+"
_PLAIN = re.compile(rf"([-+]?)({_DECIMAL})")
_COMMA = re.compile(r"-?\d+,\d{1,2}")
_FRACTION = re.compile(
    rf"(?P<sign>[-+]?)(?:(?P<whole>\d+)(?:[ ]|(?=\\frac)))?"
    rf"(?:\\frac\{{(?P<above>[-+]?(?:{_DECIMAL}))\}}\{{(?P<below>[-+]?(?:{_DECIMAL}))\}}"
    rf"|(?P<over>[-+]?(?:{_DECIMAL}))/(?P<under>[-+]?(?:{_DECIMAL})))"
)
_POWER = re.compile(rf"([-+]?(?:{_DECIMAL}))(?:\\times|\\cdot|\*)10\^(?:\{{([-+]?\d{{1,3}})\}}|([-+]?\d))|"
                    rf"([-+]?(?:{_DECIMAL}))[eE]([-+]?\d{{1,3}})")  # fmt: skip
_WORDED = re.compile(
    r"(.*?[\d}%])(?:\s*(?=[a-zA-Z]{2})|\s+(?=[mgshL]))([a-zA-Z]+(?:[ /.]+[a-zA-Z]+){0,3})(?:\^\{?\d\}?|\d)?"
)
_PERCENT = re.compile(r"\s*(?:%|\\text\{ ?(?:percent|pct|%) ?\}|percent(?:age)?|pct)$")
_NO_UNIT = re.compile(
    r"\b(?:times|plus|minus|over|divided|squared|cubed|million|thousand|hundred|billion|dozen|half|pi|sqrt|"
    r"mod|base|sin|cos|tan|log|ln|choose|to|am|pm|[ap]\.m)\b"
)
_UNITS = {
    "mm": "mm", "millimeter": "mm", "cm": "cm", "centimeter": "cm", "m": "m", "meter": "m", "metre": "m",
    "km": "km", "kilometer": "km", "in": "in", "inch": "in", "inche": "in", "ft": "ft", "feet": "ft",
    "foot": "ft", "yard": "yd", "yd": "yd", "mile": "mi", "g": "g", "gram": "g", "kg": "kg",
    "kilogram": "kg", "s": "s", "sec": "s", "second": "s", "min": "min", "minute": "min", "hour": "h",
    "h": "h", "hr": "h", "day": "day", "week": "week", "month": "month", "year": "year",
    "dollar": "dollar", "cent": "cent",
}  # fmt: skip


class Number(NamedTuple):
    """A number as it was written.

    Attributes:
        value: exact; None when it has more digits than are worth computing with.
        digits: canonical digits with sign, point and exponent, equal exactly when the values are equal.
        rounded: whether a decimal point was written, so that the value may stand for another one.
        percent: whether a percent sign followed; `value` is the number before it.
        unit: short name of a known unit, or empty.
    """

    value: Fraction | None
    digits: str
    rounded: bool
    percent: bool
    unit: str


def number(text: str) -> Number | None:
    """The number that a cleaned answer is, or None when it is anything else."""
    text, unit = without_unit(text)
    percent = _PERCENT.search(text)
    if percent:
        text = text[: percent.start()]
    elif not unit and (worded := _WORDED.fullmatch(text)) and not _NO_UNIT.search(worded[2]):
        text, unit = worded[1], worded[2]
    # "3 1/2" is a mixed number; other spaces mean nothing.
    tight = text.strip() if "/" in text else key(text)
    while tight.startswith("(") and tight.endswith(")"):
        tight = tight[1:-1]
    found = _value(tight)
    if found is None:
        return None
    value, digits = found
    word = unit.split()[0].rstrip(".").lower() if unit.split() else ""
    known = _UNITS.get(word) or _UNITS.get(word.removesuffix("s"), "")
    percent_word = unit.lower() in ("percent", "pct", "percentage")
    return Number(value, digits, "." in text, bool(percent) or percent_word, known)


def decimal_comma(text: str) -> str:
    """A cleaned answer such as `2,74` with a decimal point; any other text unchanged."""
    return text.replace(",", ".") if _COMMA.fullmatch(text) else text


def equal(gold: Number, answer: Number) -> bool:
    """Whether one number stands for the other.

    Exact, or within a millionth where a decimal was written. A percent gold equals the bare number and its
    hundredth; a bare gold equals a percent that is a hundred times as large, or, over 1, the same digits.
    Known units that differ make numbers differ.
    """
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return False
    if gold.percent == answer.percent:
        return _same(gold, answer, Fraction(1))
    if gold.percent:
        return _same(gold, answer, Fraction(1)) or _same(gold, answer, Fraction(1, 100))
    big = answer.value is not None and abs(answer.value) >= 1
    return _same(gold, answer, Fraction(100)) or (big and _same(gold, answer, Fraction(1)))


def _same(gold: Number, answer: Number, factor: Fraction) -> bool:
    if gold.value is None or answer.value is None:
        return factor == 1 and gold.digits == answer.digits
    wanted, said = gold.value * factor, answer.value
    if gold.rounded or answer.rounded:
        return abs(wanted - said) <= CLOSE * max(abs(wanted), abs(said))
    return wanted == said


def _value(text: str) -> tuple[Fraction | None, str] | None:
    if plain := _PLAIN.fullmatch(text):
        digits = _digits(plain[1], plain[2])
        return (Fraction(digits) if len(digits) < _LONG else None), digits
    if len(text) > _LONG:
        return None
    if ratio := _FRACTION.fullmatch(text):
        above = _decimal(ratio["above"] or ratio["over"])
        below = _decimal(ratio["below"] or ratio["under"])
        if not below:
            return None
        value = (-1 if ratio["sign"] == "-" else 1) * (Fraction(ratio["whole"] or 0) + above / below)
        return value, str(value)
    if power := _POWER.fullmatch(text):
        value = _decimal(power[1] or power[4]) * Fraction(10) ** int(power[2] or power[3] or power[5])
        return value, str(value)
    return None


def _decimal(text: str) -> Fraction:
    return Fraction(_digits("-" if text.startswith("-") else "", text.lstrip("+-")))


def _digits(sign: str, text: str) -> str:
    whole, _, part = text.replace(",", "").partition(".")
    whole, part = whole.lstrip("0") or "0", part.rstrip("0")
    shown = f"{whole}.{part}" if part else whole
    return f"-{shown}" if sign == "-" and shown != "0" else shown
