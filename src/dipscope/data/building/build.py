"""From a pool of responses to matched variants: verify, choose one response a query, sample, transform.

A first pass over the source keeps a few bytes of every response (`pool`). Only different pairs of gold and
final answer are verified. A second pass takes the chosen rows (`maker`), and every variant is made of the
same queries in the same order: the one drawn by the seed, so that a smaller sample begins a larger one.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dipscope.data.building import pool, provenance, writing
from dipscope.data.building.funnel import Funnel
from dipscope.data.building.maker import Maker, Table, needs_verified
from dipscope.data.building.pool import Chosen, Keep, Report
from dipscope.data.building.verdict_cache import Judge, verdicts
from dipscope.data.checking import check, decontaminate
from dipscope.data.checking.check import Stats
from dipscope.data.checking.matches import Found
from dipscope.data.reading import parallel
from dipscope.data.shaping import reflection, variants
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError
from dipscope.scoring import verify
from dipscope.study import Variant
from dipscope.workspace import hash_file, hash_json

WORTH = 4096  # rows to be described for which other processes start

Card = Callable[[Path, Mapping[str, Stats], Mapping[str, Any]], None]


@dataclass(frozen=True)
class Rules:
    """How responses become rows.

    Attributes:
        variants: what is written, each a table of its own.
        rows: rows wanted; all that there are by default.
        keep: which of a query's verified responses is kept.
        seed: of choices, of the order of rows, and of what the variants draw.
        shortest: responses of a smaller length are left out; characters, or tokens with a tokenizer.
        longest: responses of a greater length are left out.
        token_matched: cut every table to equal supervised tokens (`variants.token_matched`).
        budget: these tokens; by default those of the smallest table.
        drop_contaminated: leave out queries in whose prompt or chosen responses a benchmark passage stands.
    """

    variants: tuple[Variant, ...] = ("cot", "no_cot")
    rows: int | None = None
    keep: Keep = "random"
    seed: int = 0
    shortest: int | None = None
    longest: int | None = None
    token_matched: bool = False
    budget: int | None = None
    drop_contaminated: bool = False


def build(
    table: Table,
    out: Path,
    rules: Rules,
    verifiers: Judge,
    report: Report = None,
    *,
    tokenizer: Any | None = None,
    passages: Mapping[str, Sequence[str]] | None = None,
    cache: Path | None = None,
    card: Card | None = None,
    workers: int = 1,
) -> dict[str, Any]:
    """Build matched variants of a pool in a folder: `VARIANT.parquet`, `provenance.json` and the card.

    Can be interrupted and called again: verdicts are kept in `out/.cache`. A finished build is left alone.
    The same inputs give the same bytes. Memory is that of `pool.Pool`, of the rows that are kept (compressed)
    and of a thousand rows of the variant that is being written.

    Args:
        table: the pool.
        out: a new or empty folder, or that of the same build.
        rules: what is made.
        verifiers: reach verdicts.
        report: called with work done, work in all and a note.
        tokenizer: counts lengths, and supervised tokens for `token_matched`.
        passages: texts of benchmarks by name, looked for in prompts and chosen responses.
        cache: folder of verdicts, for several builds to share.
        card: writes the data card: `report.datacard.write`.
        workers: processes that read the pool and describe the variants.

    Returns:
        The provenance, with `fresh`: whether this call made it.

    Raises:
        DipscopeError: the folder is another's, the rules contradict each other, or no row is left.
    """
    _check(rules, tokenizer, passages)
    settings = _settings(rules, tokenizer, passages)
    facts = table.facts
    judged_by = {"verifier": verify.VERSION, "keywords": reflection.KEYWORDS.version}
    key = provenance.key(facts, settings | judged_by)
    if (done := provenance.standing(out, key)) is not None:
        return {**done, "fresh": False}
    provenance.begin(out, key)
    made = provenance.head(key, facts, settings, judged_by)

    found = pool.read(table, _lengths(rules, tokenizer), report, table.rows, workers)
    reached = verdicts(list(found.pairs), verifiers, cache or out / provenance.CACHE / "verdicts", report)
    verified = needs_verified(rules.variants)
    funnel = Funnel(found, reached, rules.shortest, rules.longest, verified=verified)
    chosen = pool.choose(found, funnel.verdicts, funnel.fits, rules.keep, rules.seed)
    candidates = [c for c in chosen if c.verified >= 0 or not verified]
    maker = Maker(table, rules.variants, rules.seed, verifiers, funnel.verdicts)
    if passages:
        searched, clean = _search(maker, candidates, passages, report)
        made["decontamination"] = searched.as_dict()
        if rules.drop_contaminated:
            candidates = clean
            funnel.note("queries without a benchmark passage", len(clean))
    kept = maker.keep(candidates, rules.rows, report)
    funnel.note("queries drawn", maker.tried)
    funnel.note("queries of which every variant can be made", len(kept))
    if not kept:
        said = ", ".join(f"{stage}: {n}" for stage, n in funnel.counts.items())
        raise DipscopeError(f"no row is left ({said})", str(out), "Loosen the rules, or look at the source.")
    made |= {"counts": funnel.counts, "queries": funnel.queries, "verification": funnel.verification()}
    made["refused"] = {variant: dict(sorted(why.items())) for variant, why in sorted(maker.refused.items())}

    made["variants"] = {}
    tokens = _tokens(maker, kept, rules, tokenizer, report)
    for variant in rules.variants:
        rows = variants.fitting(tokens[variant], _budget(rules, tokens)) if tokens else len(kept)
        path = out / f"{variant}.parquet"
        writing.write(path, maker.table(variant, kept[:rows]))
        made["variants"][variant] = {
            "file": path.name,
            "rows": rows,
            "bytes": path.stat().st_size,
            "sha256": hash_file(path),
            **({"tokens": sum(tokens[variant][:rows])} if tokens else {}),
        }
        if report:
            report(len(made["variants"]), len(rules.variants), "variants written")
    if card:
        stats: dict[str, Stats] = {}
        paths = [out / facts["file"] for facts in made["variants"].values()]
        many = sum(facts["rows"] for facts in made["variants"].values()) >= WORTH
        for variant, found_there in zip(
            made["variants"],
            parallel.ordered(partial(_described, tokenizer=tokenizer), paths, workers if many else 1),
            strict=True,
        ):
            stats[variant] = found_there
            if report:
                report(len(stats), len(rules.variants), "variants described")
        card(out, stats, made)
    provenance.write(out, made)
    return {**made, "fresh": True}


def _check(rules: Rules, tokenizer: Any | None, passages: Mapping[str, Sequence[str]] | None) -> None:
    wrong = {
        "no variant is named": not rules.variants,
        "a variant is named twice": len(set(rules.variants)) < len(rules.variants),
        "token matching needs a tokenizer": rules.token_matched and tokenizer is None,
        "a token budget is for token matching": rules.budget is not None and not rules.token_matched,
        "dropping contaminated queries needs benchmarks": rules.drop_contaminated and not passages,
    }
    for what, is_wrong in wrong.items():
        if is_wrong:
            raise DipscopeError(what, "data build", "Correct the rules.")


def _settings(
    rules: Rules, tokenizer: Any | None, passages: Mapping[str, Sequence[str]] | None
) -> dict[str, Any]:
    settings = asdict(rules) | {"variants": list(rules.variants)}
    if tokenizer is not None:
        # A folder's own name, not where it stands on this machine.
        settings["tokenizer"] = Path(str(tokenizer.name_or_path)).name
    if passages:
        settings["against"] = {name: hash_json(list(texts)) for name, texts in passages.items()}
    return settings


def _lengths(rules: Rules, tokenizer: Any | None) -> pool.Lengths | None:
    """Counts tokens, where the rules look at lengths at all."""
    if tokenizer is None or (rules.keep == "random" and rules.shortest is None and rules.longest is None):
        return None
    return lambda texts: [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def _search(
    maker: Maker, candidates: Sequence[Chosen], passages: Mapping[str, Sequence[str]], report: Report
) -> tuple[Found, list[Chosen]]:
    """What stands in prompts and chosen responses, and the queries in which nothing does.

    All candidates are searched, not only those that will be kept: what counts as boilerplate then does not
    depend on the number of rows, and a smaller sample still begins a larger one.
    """
    query: dict[str, str] = {}

    def stream() -> Iterator[Trace]:
        for trace in maker.read(candidates):
            query[trace.id] = trace.query
            yield trace

    found = decontaminate.search(stream(), passages, report)
    dirty = {query[match.trace] for match in found.matches}
    return found, [c for c in candidates if c.query not in dirty]


def _tokens(
    maker: Maker, kept: Sequence[Chosen], rules: Rules, tokenizer: Any | None, report: Report
) -> dict[Variant, list[int]]:
    """Supervised tokens of every row of every variant, where they are to be matched."""
    if not rules.token_matched:
        return {}
    from dipscope.data.tokenize import render

    tokens: dict[Variant, list[int]] = {}
    for variant in rules.variants:
        rows = maker.table(variant, kept)
        tokens[variant] = [len(render(tokenizer, trace, sys.maxsize).target_ids) for trace in rows]
        if report:
            report(len(tokens), len(rules.variants), "variants tokenized")
    return tokens


def _budget(rules: Rules, tokens: Mapping[Variant, Sequence[int]]) -> int:
    return min(map(sum, tokens.values())) if rules.budget is None else rules.budget


def _described(path: Path, tokenizer: Any | None) -> Iterator[Stats]:
    """Statistics of a written table, read again a few rows at a time."""
    from dipscope.data.reading.sources import Source, open_table

    languages = importlib.util.find_spec("py3langid") is not None
    yield check.describe(open_table(Source(path=str(path))).stream(), tokenizer, languages=languages)
