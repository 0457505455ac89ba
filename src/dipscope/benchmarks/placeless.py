"""Benchmarks that do not know their domain: the study has to say it."""

from __future__ import annotations

from dipscope.errors import DipscopeError
from dipscope.scoring.base import DOMAINS, Benchmark, Domain


class Placeless:
    """Base of benchmarks whose domain is the study's to say; `domain` is what a record holds meanwhile."""

    domain: Domain = "ood_general"


def check(benchmark: Benchmark, said: Domain | None) -> None:
    """Refuse a benchmark without a domain.

    Args:
        benchmark: any benchmark.
        said: the domain that the study gives it.

    Raises:
        DipscopeError: it is placeless, and the study says none.
    """
    if said is None and isinstance(benchmark, Placeless):
        raise DipscopeError(
            f"'{benchmark.name}' needs the domain that its results belong to",
            f'measure.benchmark."{benchmark.name}".domain',
            f"Set it to one of {', '.join(DOMAINS)}.",
        )
