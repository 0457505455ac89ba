"""Quantities for a reader: time, bytes, counts."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds for a reader: `40 s`, `3 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Bytes for a reader: `3.2 GB`."""
    return _scaled(count, (" B", " kB", " MB", " GB", " TB"))


def count(number: float) -> str:
    """A large count for a reader: `163 M`, `1.09 G`."""
    return _scaled(number, ("", " k", " M", " G", " T"))


def _scaled(number: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}{units[-1]}"
