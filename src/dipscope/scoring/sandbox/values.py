"""Python values as JSON and back, so that plain data crosses between processes that do not trust each other.

What arrives is made of built-in types only, whatever the sender's objects pretend to be: no comparison of
theirs is ever called. Kinds are kept apart as Python keeps them (a tuple is no list, 1 is no 1.0).
"""

from __future__ import annotations

import builtins
import datetime
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Any

MOST_DRAWN = 100_000  # elements taken from an iterator
_SMALL = 1 << 62
_Keep = Callable[[Any], int]


def dumps(value: Any, keep: _Keep | None = None) -> str:
    """One line of JSON.

    Args:
        value: None, booleans, numbers, strings, bytes, built-in types, and tuples, lists, sets, dicts and
            iterators of them; subclasses count as what they derive from.
        keep: gives a number to any other object, which stays behind.

    Raises:
        TypeError: the value holds another object and there is no `keep`.
        RecursionError: it is nested too deeply.
    """
    return json.dumps(_plain(value, keep))


def _plain(value: Any, keep: _Keep | None) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value if not isinstance(value, str) else str(value)
    if isinstance(value, int):
        number = int(value)
        return number if -_SMALL < number < _SMALL else {"i": hex(number)}
    if isinstance(value, float):
        return float(value)
    if isinstance(value, list):
        return [_plain(v, keep) for v in value]
    for kind, name in ((tuple, "t"), (frozenset, "f"), (set, "s")):
        if isinstance(value, kind):
            return {name: [_plain(v, keep) for v in value]}
    if isinstance(value, dict):
        return {"d": [[_plain(k, keep), _plain(v, keep)] for k, v in value.items()]}
    return _rarer(value, keep)


def _rarer(value: Any, keep: _Keep | None) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return {"b": bytes(value).hex()}
    if isinstance(value, complex):
        return {"c": [value.real, value.imag]}
    if isinstance(value, Iterator):
        return {"n": [_plain(v, keep) for v in islice(value, MOST_DRAWN)]}
    if isinstance(value, (Decimal, Fraction)):
        return {type(value).__name__: str(value)}
    if isinstance(value, datetime.date):
        return {"date": value.isoformat()}
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return _plain(value.tolist(), keep)
    if type(value) in (type({}.keys()), type({}.values()), type({}.items())):
        return {"n": [_plain(v, keep) for v in value]}
    if isinstance(value, type) and getattr(builtins, name := str(value.__name__), None) is value:
        return {"k": name}
    if keep is None:
        raise TypeError(f"{type(value).__name__} is not plain data")
    return {"h": keep(value)}


def loads(text: str | bytes, handle: Callable[[int], Any] | None = None) -> Any:
    """The value of a line that `dumps` made.

    Args:
        text: JSON.
        handle: makes the stand-in for an object that stayed behind.

    Raises:
        ValueError: it is no such line.
    """
    try:
        return _value(json.loads(text), handle)
    except (TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"not a value: {error}") from None


def _value(plain: Any, handle: Callable[[int], Any] | None) -> Any:
    if isinstance(plain, list):
        return [_value(v, handle) for v in plain]
    if not isinstance(plain, dict):
        return plain
    ((name, held),) = plain.items()
    if name == "h":
        if handle is None:
            raise ValueError("an object that stayed behind")
        return handle(int(held))
    return _READ[name](held, handle)


def _kind(name: str) -> type:
    found = getattr(builtins, name)
    if not isinstance(found, type):
        raise TypeError(f"{name} is no type")
    return found


def _each(held: Any, handle: Callable[[int], Any] | None) -> Iterator[Any]:
    return (_value(v, handle) for v in held)


_READ: dict[str, Callable[[Any, Any], Any]] = {
    "i": lambda held, handle: int(held, 16),
    "t": lambda held, handle: tuple(_each(held, handle)),
    "f": lambda held, handle: frozenset(_each(held, handle)),
    "s": lambda held, handle: set(_each(held, handle)),
    "d": lambda held, handle: {_value(k, handle): _value(v, handle) for k, v in held},
    "b": lambda held, handle: bytes.fromhex(held),
    "c": lambda held, handle: complex(*held),
    "k": lambda held, handle: _kind(held),
    "n": lambda held, handle: iter(list(_each(held, handle))),
    "Decimal": lambda held, handle: Decimal(held),
    # Two whole numbers: of "1e999999999" it would make one, which takes all memory.
    "Fraction": lambda held, handle: Fraction(*map(int, held.split("/"))),
    "date": lambda held, handle: (datetime.datetime if "T" in held else datetime.date).fromisoformat(held),
}
