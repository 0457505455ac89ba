"""Names to benchmarks: `family/name`, and globs such as `organism/*`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from dipscope.errors import DipscopeError
from dipscope.scoring.base import Benchmark

EXAMPLES = "for example 'organism/*', 'gym/countdown' or 'paper/*'"
FAMILIES = ("organism", "small", "gym", "paper", "public", "lm_eval", "own")
# Published benchmarks by the module that has them, which is imported where one is asked for. The paper's ten
# stand in the order of their domains.
PUBLISHED = {
    "paper/math500": "math",
    "paper/aime24": "math",
    "paper/livecodebench": "code",
    "paper/gpqa_diamond": "choice",
    "paper/mmlu_pro": "choice",
    "paper/ifeval": "ifeval",
    "paper/alpaca_eval": "judged",
    "paper/halueval": "judged",
    "paper/truthfulqa": "judged",
    "paper/hex_phi": "safety",
    "public/aime25": "math",
    "public/gsm8k": "math",
    "public/humaneval": "code",
    "public/mbpp": "code",
    "public/strongreject": "safety",
    "public/harmbench": "safety",
    "public/xstest": "safety",
    "public/xstest_benign": "safety",
}
# Neither says anything without the other: a model that refuses everything is not safe.
TOGETHER = {"public/xstest": "public/xstest_benign", "public/xstest_benign": "public/xstest"}


def names(patterns: Iterable[str]) -> list[str]:
    """The benchmarks that the patterns name, once each, in the order of the patterns.

    Raises:
        DipscopeError: a pattern names no benchmark.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        for name in _match(pattern):
            found[name] = None
            if name in TOGETHER:
                found[TOGETHER[name]] = None
    return list(found)


def get(name: str, protocol: str = "strict", path: str | None = None) -> Benchmark:
    """A benchmark by its full name.

    Args:
        name: as `names` gives it.
        protocol: `strict` or `paper`, of a published one.
        path: a local file of its items, of a published one.

    Raises:
        DipscopeError: there is no such benchmark, or it takes no protocol or path.
    """
    if name in PUBLISHED:
        return _published(name, protocol, path)
    takes_path = name.startswith(("own/", "lm_eval/"))
    if protocol != "strict" or (path is not None and not takes_path):
        key = "protocol" if protocol != "strict" else "path"
        raise DipscopeError(
            f"{key} is for published benchmarks, and '{name}' is none",
            f'measure.benchmark."{name}".{key}',
            "Leave it out.",
        )
    if name.startswith("gym/"):
        from dipscope.benchmarks import gym

        return gym.get(name.removeprefix("gym/"))
    if name.startswith("own/"):
        from dipscope.benchmarks import own

        return own.get(name, path)
    if name.startswith("lm_eval/"):
        from dipscope.benchmarks import lm_eval_tasks

        return lm_eval_tasks.get(name, path)
    family = _made(name.partition("/")[0])
    if name not in family:
        _match(name)  # says what is wrong with the name
    return family[name]


def resolve(patterns: Iterable[str]) -> list[Benchmark]:
    """The benchmarks that the patterns name, the published ones under their strict protocol; see `names`."""
    return [get(name) for name in names(patterns)]


@cache
def _published(name: str, protocol: str, path: str | None) -> Benchmark:
    # Kept, so that the items of a set are read once in a process.
    module = importlib.import_module(f"dipscope.benchmarks.{PUBLISHED[name]}")
    made: Benchmark = module.BENCHMARKS[name](path=Path(path) if path else None, protocol=protocol)
    return made


def _match(pattern: str) -> list[str]:
    family, _, rest = pattern.partition("/")
    if family == "gym" and rest:
        return [get(pattern).name]
    if family in ("own", "lm_eval") and rest:
        return [pattern]  # `get` says what is wrong with it: it may need a path
    known = [name for name in PUBLISHED if name.startswith(f"{family}/")] or list(_made(family))
    matches = [name for name in known if fnmatchcase(name, pattern)]
    if matches:
        return matches
    # The name may be right and the family wrong or left out, or the other way round.
    bare = rest or family
    near = [n for n in (*PUBLISHED, *_made("organism"), *_made("small")) if n.partition("/")[2] == bare]
    near += difflib.get_close_matches(pattern, known, n=1) if rest else []
    if not known and rest:
        near += [f"{close}/{rest}" for close in difflib.get_close_matches(family, FAMILIES, n=1)]
    if near:
        hint = f"Did you mean '{near[0]}'?"
    elif known:
        hint = f"It has: {', '.join(known)}."
    else:
        hint = f"Families are {', '.join(FAMILIES)}: {EXAMPLES}."
    raise DipscopeError(f"no benchmark is named '{pattern}'", "measure.benchmarks", hint)


def _made(family: str) -> dict[str, Benchmark]:
    """Benchmarks of our own, which are imported where they are asked for."""
    if family == "organism":
        from dipscope.benchmarks import organism

        return organism.BENCHMARKS
    if family == "small":
        from dipscope.benchmarks import small

        return small.BENCHMARKS
    return {}
