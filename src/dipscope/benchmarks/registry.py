"""Names to benchmarks: `family/name`, and globs such as `organism/*`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from dipscope.benchmarks.base import Benchmark
from dipscope.errors import DipscopeError

FAMILIES = ("organism", "small", "gym")


def resolve(patterns: Iterable[str]) -> list[Benchmark]:
    """The benchmarks that the patterns name, once each, in the order of the patterns.

    Raises:
        DipscopeError: a pattern names no benchmark.
    """
    found: dict[str, Benchmark] = {}
    for pattern in patterns:
        for benchmark in _match(pattern):
            found.setdefault(benchmark.name, benchmark)
    return list(found.values())


def _match(pattern: str) -> list[Benchmark]:
    family, _, rest = pattern.partition("/")
    if family == "gym" and rest:
        from dipscope.benchmarks import gym

        return [gym.get(rest)]
    known = _listed(family)
    matches = [b for name, b in known.items() if fnmatchcase(name, pattern)]
    if matches:
        return matches
    if known:
        near = difflib.get_close_matches(pattern, known, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"It has: {', '.join(known)}."
    else:
        hint = f"Families are {', '.join(FAMILIES)}; for example 'organism/*' or 'gym/countdown'."
    raise DipscopeError(f"no benchmark is named '{pattern}'", "measure.benchmarks", hint)


def _listed(family: str) -> dict[str, Benchmark]:
    """The benchmarks of a family that are known by name. Families are imported where they are asked for."""
    if family == "organism":
        from dipscope.benchmarks import organism

        return organism.BENCHMARKS
    if family == "small":
        from dipscope.benchmarks import small

        return small.BENCHMARKS
    return {}
