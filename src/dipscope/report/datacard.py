"""The card of a data set: a README.md in the form of the Hugging Face Hub, with its figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dipscope.data.checking.check import Stats
from dipscope.data.checking.duplicates import JACCARD
from dipscope.data.checking.language import UNDETERMINED
from dipscope.report import datafigures, datatables
from dipscope.report.datatables import Grid, number
from dipscope.report.export import save
from dipscope.report.words import clean
from dipscope.workspace import write_atomic

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
          (10_000_000, "1M<n<10M"))  # fmt: skip
# An underscore between letters or digits is no mark.
_MARKS = re.compile(r"[\\`*\[\]<>|&~$]|_(?![^\W_])|(?<![^\W_])_")
_LANGUAGE_SHARE = 0.02  # of the sample, from which the Hub is told of a language
_LABELS = {"asked": "revision asked for", "checked": "checksum known before"}
PHRASES = 10  # boilerplate phrases that are quoted


def write(folder: Path, stats: Mapping[str, Stats], provenance: Mapping[str, Any]) -> None:
    """Write `folder/README.md` and `folder/figures/{lengths,stages}.{svg,png}`.

    Of `provenance` the card reads, where they are there:

    - `name`, `license`: text;
    - `source`: `sources.Table.facts`, of which `files` is a list of `name`, `sha256`, `bytes`;
    - `rules`: settings of the build, by name;
    - `counts`: responses by stage, in order;  `queries`: queries by stage;
    - `refused`: by variant the queries that it could not be made of, by reason;
    - `variants`: by name a mapping, of which `file`, `rows` and `sha256` are read;
    - `verification`: `check.Verification.as_dict()`;  `verifier`: its version;
    - `decontamination`: `matches.Found.as_dict()`.

    The bytes depend on nothing but the arguments, the name of the folder where `name` is missing, and the
    versions of the libraries.

    Args:
        folder: of the data set; made if missing.
        stats: of each variant, in reading order.
        provenance: how the data set was made.

    Raises:
        DipscopeError: the folder cannot be written.
    """
    name = str(provenance.get("name") or folder.resolve().name)
    figures = {"lengths": datafigures.lengths(stats)} if stats else {}
    if counts := stage_counts(provenance):
        figures["stages"] = datafigures.stages(counts)
    drawn = {stem: spec for stem, spec in figures.items() if spec is not None}
    for stem, spec in drawn.items():
        save(spec, folder / "figures", stem)
    head = _front_matter(name, stats, provenance)
    parts = [head, *_body(name, stats, provenance, set(drawn))]
    write_atomic(folder / "README.md", "\n\n".join(parts) + "\n")


def stage_counts(provenance: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Responses by stage, in order; empty where there are none."""
    return [(str(stage), int(rows)) for stage, rows in (provenance.get("counts") or {}).items()]


def escaped(text: Any) -> str:
    """Text that Markdown, a table's cell and HTML show as it is, on one line.

    Marks become character references, which no Markdown parser takes for syntax.
    """
    line = " ".join(clean(str(text)).split())
    return _MARKS.sub(lambda m: f"&#{ord(m[0])};", line)


def _front_matter(name: str, stats: Mapping[str, Stats], provenance: Mapping[str, Any]) -> str:
    """YAML for the Hub. Texts are written as JSON strings, which YAML reads the same."""
    rows = max((s.rows for s in stats.values()), default=0)
    size = next((label for below, label in _SIZES if rows < below), "n>10M")
    lines = [f"license: {_quoted(provenance.get('license') or 'unknown')}", f"pretty_name: {_quoted(name)}"]
    if languages := _languages(stats):
        lines += ["language:", *(f"- {_quoted(code)}" for code in languages)]
    lines += ["task_categories:", "- text-generation", "tags:"]
    lines += [f"- {tag}" for tag in ("reasoning", "sft", "synthetic", "dipscope")]
    lines += ["size_categories:", f"- {size}"]
    files = _files(stats, provenance)
    if files:
        lines.append("configs:")
    for number_, (variant, file) in enumerate(files.items()):
        lines += [f"- config_name: {_quoted(variant)}", f"  data_files: {_quoted(file)}"]
        lines += ["  default: true"] if number_ == 0 else []
    return "\n".join(["---", *lines, "---"])


def _languages(stats: Mapping[str, Stats]) -> list[str]:
    found: dict[str, int] = {}
    for s in stats.values():
        for code, n in s.languages.items():
            found[code] = found.get(code, 0) + n
    whole = sum(found.values())
    said = [c for c, n in found.items() if n >= _LANGUAGE_SHARE * whole and c not in (UNDETERMINED, "zxx")]
    return sorted(said, key=lambda c: (-found[c], c))


def _files(stats: Mapping[str, Stats], provenance: Mapping[str, Any]) -> dict[str, str]:
    """The file of each variant, for those that have one."""
    variants = provenance.get("variants") or {}
    return {v: str(variants[v]["file"]) for v in stats if "file" in variants.get(v, {})}


def _body(
    name: str, stats: Mapping[str, Stats], provenance: Mapping[str, Any], drawn: set[str]
) -> Iterator[str]:
    yield f"# {escaped(name)}"
    yield _summary(stats, provenance)
    if stats:
        yield from _contents(stats, drawn)
    if counts := stage_counts(provenance):
        yield "## Stages"
        yield "Responses that each stage of the build left; from the drawing on, one for each query."
        if "stages" in drawn:
            yield "![Responses after each stage](figures/stages.svg)"
        yield markdown(datatables.stages(counts, provenance.get("queries")))
    if refused := provenance.get("refused"):
        rows = [(v, why, number(n)) for v, reasons in refused.items() for why, n in reasons.items()]
        if rows:
            yield "A query of which one variant cannot be made is left out of all:"
            yield markdown(Grid(("variant", "reason", "queries"), tuple(rows), 2))
    if source := provenance.get("source"):
        yield "## Source"
        yield from _source(source)
    if rules := provenance.get("rules"):
        yield "## Rules"
        yield _facts(rules)
    if found := provenance.get("verification"):
        yield "## Verification"
        yield _verification(found, provenance.get("verifier"))
    yield "## Decontamination"
    yield from _decontamination(provenance.get("decontamination"))
    if files := _files(stats, provenance):
        yield "## Use"
        yield _use(files, provenance)


def _summary(stats: Mapping[str, Stats], provenance: Mapping[str, Any]) -> str:
    first = next(iter(stats.values()), None)
    many = len(stats) > 1
    said = "Training data for supervised fine-tuning: questions with a response each"
    if first is not None:
        reasoned = any(s.reasoned for s in stats.values())
        thinking = ", in which reasoning stands in a thinking block before the answer" if reasoned else ""
        said += f"{thinking}. "
        said += _matched(stats) if many else f"{number(first.rows)} rows for {number(first.queries)} queries"
    license_ = provenance.get("license")
    note = "" if license_ else " The licence is that of the source and was not stated; look it up before use."
    return f"{said}.{note}"


def _matched(stats: Mapping[str, Stats]) -> str:
    """What variants have in common: their queries or, cut to equal tokens, the beginning of one order."""
    queries = {s.queries for s in stats.values()}
    if len(queries) == 1:
        return (
            f"{len(stats)} variants of {number(queries.pop())} queries: the same questions in the same "
            "order, answered differently"
        )
    return (
        f"{len(stats)} variants with about equally many tokens to learn from: the first "
        f"{number(min(queries))} to {number(max(queries))} questions of one order, answered differently"
    )


def _contents(stats: Mapping[str, Stats], drawn: set[str]) -> Iterator[str]:
    first = next(iter(stats.values()))
    yield "## Contents"
    yield markdown(datatables.overview(stats))
    yield (
        "*With reasoning*: something stands in a thinking block. *Closed*: the thinking, if any, ends. "
        "*Final answer*: a box or an answer line after the thinking. *Looping*: of the last 256 word "
        "8-grams, at least 80 % occurred before in the response. *Repeated response*: byte for byte that of "
        "an earlier row. *Learned*: reasoning and answers of all rows together."
    )
    yield f"Lengths in {escaped(first.unit)}, the prompt without chat template:"
    if "lengths" in drawn:
        yield "![Lengths of reasoning and answers](figures/lengths.svg)"
        yield (
            "The line is the median of the rows that have the part. "
            + "Variants that look the same share a panel; those without the part have none. "
            * (len(stats) > 1)
            + "Every panel has its own scale of rows."
        )
    yield markdown(datatables.lengths(stats))
    yield (
        "Repetition inside a response. *Compression*: bytes after zlib divided by bytes before, low where a "
        "text repeats itself. *8-gram overlap*: share of word 8-grams that occurred before."
    )
    yield markdown(datatables.repetition(stats))
    yield markdown(datatables.kinds(stats))


def _source(source: Mapping[str, Any]) -> Iterator[str]:
    # The mapping of columns stands in `reading`, in words.
    facts = {_LABELS.get(k, k): v for k, v in source.items() if k not in ("files", "columns")}
    yield _facts(facts)
    rows = [(str(f["name"]), str(f["sha256"]), number(f["bytes"])) for f in source.get("files") or ()]
    if rows:
        yield markdown(Grid(("file", "sha256", "bytes"), tuple(rows), 2))


def _verification(found: Mapping[str, Any], verifier: Any) -> str:
    verdicts: Mapping[str, int] = found["verdicts"]
    said = ", ".join(f"{number(n)} {verdict}" for verdict, n in verdicts.items()) or "no row"
    judged = sum(n for verdict, n in verdicts.items() if verdict != "error")
    rate = datatables.share(verdicts.get("correct", 0), judged)
    by = f" (verifier {escaped(verifier)})" if verifier else ""
    lines = [f"Final answers against gold answers{by}: {said}."]
    if judged:
        lines.append(f"{rate} of the judged are correct{', errors left out' * ('error' in verdicts)}.")
    if without := found.get("without_gold"):
        lines.append(f"{number(without)} have no gold answer.")
    if changed := found.get("changed"):
        lines.append(f"{number(changed)} carry another verdict than the one reached now.")
    return " ".join(lines)


def _decontamination(found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is None:
        yield "The set was not searched for benchmark passages."
        return
    yield (
        f"{number(found['traces'])} traces were searched, prompts and responses, for the passages of "
        f"{len(found['passages'])} benchmark{'s' * (len(found['passages']) != 1)}; in "
        f"{number(found['matched_traces'])} of them one was found. A trace counts once for a benchmark, "
        "under the strongest kind: all of a passage (*exact*), a prompt whose word trigrams have a Jaccard "
        f"similarity of at least {JACCARD} with the passage's (*near*), 13 or 8 words in a row."
    )
    yield markdown(datatables.decontamination(found))
    if phrases := found.get("boilerplate"):
        quoted = "; ".join(f"“{escaped(p['words'])}”" for p in phrases[:PHRASES])
        more = f" and {len(phrases) - PHRASES} more" if len(phrases) > PHRASES else ""
        yield f"Phrases too common to be evidence, left out of the count: {quoted}{more}."


def _use(files: Mapping[str, str], provenance: Mapping[str, Any]) -> str:
    tables = "\n\n".join(
        f"[datasets.{json.dumps(v) if not re.fullmatch(r'[A-Za-z0-9_-]+', v) else v}]\npath = {_quoted(f)}"
        for v, f in files.items()
    )
    rows = (provenance.get("variants") or {}).items()
    sums = [
        (str(v), str(facts.get("file", "")), str(facts.get("sha256", "")), number(facts.get("rows", 0)))
        for v, facts in rows
    ]
    grid = Grid(("variant", "file", "sha256", "rows"), tuple(sums), 3)
    return (
        "In a [dipscope](https://pypi.org/project/dipscope) study, with this folder as the working directory:"
        f"\n\n```toml\n{tables}\n```\n\n{markdown(grid)}\n\n"
        "Columns: `id`, `query` (equal in every variant of a question), `prompt`, `response`, `gold`, "
        "`origin`, `verdict`, `source` (where the row was read), `context`, `finish`."
    )


def _facts(facts: Mapping[str, Any]) -> str:
    rows: Sequence[tuple[str, str]] = [
        (str(k), _said(v)) for k, v in facts.items() if v not in (None, "", [])
    ]
    return markdown(Grid(("", ""), tuple(rows), 2))


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping) and all(isinstance(v, (str, int, float)) for v in value.values()):
        return ", ".join(f"{k} = {v}" for k, v in value.items())
    if isinstance(value, (list, tuple)) and all(isinstance(v, (str, int, float)) for v in value):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def markdown(grid: Grid) -> str:
    """A table in GitHub's Markdown: names at the left, numbers at the right, every cell escaped."""
    marks = [":--" if i < grid.names else "--:" for i in range(len(grid.head))]
    lines = [grid.head, marks, *grid.rows]
    shown = [[cell if line is marks else escaped(cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in shown)


def _quoted(text: Any) -> str:
    return json.dumps(clean(str(text)), ensure_ascii=False)
