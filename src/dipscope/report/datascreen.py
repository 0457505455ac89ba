"""What `dipscope data check` prints on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dipscope.data.checking.check import Stats, Verification
from dipscope.data.checking.matches import Found, Match
from dipscope.report import datatables
from dipscope.report.datatables import Grid, number, share
from dipscope.report.words import clean
from dipscope.train.targets import Targets

PHRASES = 5  # boilerplate phrases that are quoted


class Screen:
    """Prints the parts of a check one after the other; all text from data is shown as it is."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()

    def line(self, text: str, style: str = "") -> None:
        """A paragraph."""
        self.console.print(Text(clean(text), style=style), soft_wrap=True)

    def grid(self, grid: Grid) -> None:
        """A table."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for i, head in enumerate(grid.head):
            table.add_column(head, justify="left" if i < grid.names else "right", overflow="fold")
        for row in grid.rows:
            table.add_row(*(Text(clean(cell)) for cell in row))
        self.console.print(table)

    def facts(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Named numbers, each with a note."""
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(justify="right")
        table.add_column(style="dim")
        for row in rows:
            table.add_row(*(Text(clean(cell)) for cell in row))
        self.console.print(table)

    def head(self, title: str) -> None:
        """The title of a part."""
        self.console.print()
        self.line(title, "bold")

    def described(self, source: str, mapping: str, stats: Stats) -> None:
        """How the table was read and what is in it."""
        self.line(source, "bold")
        self.line(f"read as {mapping}")
        unit = datatables.unit(stats)
        facts = [
            ("rows", number(stats.rows), f"{number(stats.queries)} different queries"),
            ("with reasoning", share(stats.reasoned, stats.rows), ""),
            ("closed", share(stats.closed, stats.rows), "thinking, if any, ends"),
            ("final answer", share(stats.answered, stats.rows), "a box or an answer line after the thinking"),
            ("gold answer", share(stats.gold, stats.rows), ""),
            (
                "looping",
                share(stats.looping, stats.rows),
                "the last 256 word 8-grams were mostly said before",
            ),
            ("repeated response", share(stats.repeated_responses, stats.rows), "equal to an earlier row's"),
            ("learned", f"{number(stats.response.total)} {unit}", "reasoning and answers"),
        ]
        self.facts(facts)
        self.head(f"Lengths in {stats.unit}")
        named = {"": stats}
        self.grid(datatables.lengths(named).without(1))
        self.head("Repetition inside a response")
        self.grid(datatables.repetition(named).without(1))
        self.head("Kinds of rows")
        self.grid(datatables.kinds(named).turned())

    def verified(self, stats: Stats, found: Verification | None) -> None:
        """The verdicts on the final answers."""
        self.head("Verification")
        if found is None:
            self.line("no row has a gold answer" if not stats.gold else "not asked for")
            return
        verdicts = ", ".join(f"{number(n)} {v}" for v, n in found.verdicts.items())
        rate = f"; {share(found.verdicts.get('correct', 0), found.judged)} of the judged rows are correct"
        self.line(verdicts + (rate if found.judged else ""))
        if found.without_gold:
            self.line(f"{number(found.without_gold)} rows have no gold answer")
        if found.changed:
            self.line(f"{number(found.changed)} rows carry another verdict than the one reached now")

    def rendered(self, found: Targets) -> None:
        """What the chat template and the length limit make of the rows."""
        self.head(f"In training, at most {number(found.max_length)} tokens a row")
        facts = [
            (
                "learned tokens",
                number(found.target_tokens),
                f"{number(found.prompt_tokens)} of prompts masked",
            ),
            ("longest row", number(found.longest), "tokens"),
            ("cut", share(found.cut, found.rows), f"{number(found.empty)} of them lose the whole response"),
            ("end supervised", share(found.ended, found.rows), f"the last learned token is {found.end}"),
        ]
        if found.thinking:
            kept = f"in {number(found.thinking)} sampled rows"
            facts.append(("tags kept", share(found.kept, found.thinking), kept))
        self.facts(facts)
        if found.notes:
            self.line("Preflight of a sample:")
        for note in found.notes:
            self.line(f"- {_shown(note)}")
        if found.refusal:
            self.line(f"Training would refuse these rows: {found.refusal}", "red")
        self.line(f"row {found.row} begins: {_shown(found.begins)}", "dim")
        self.line(f"row {found.row} ends: {_shown(found.ends)}", "dim")

    def searched(self, found: Found, shown: Sequence[tuple[Match, str]]) -> None:
        """Which benchmark passages stand in which traces."""
        matched = len({m.trace for m in found.matches})
        self.head("Benchmark passages")
        self.line(
            f"{number(found.traces)} traces with {number(found.words)} words searched; "
            f"{number(matched)} of them have a passage"
        )
        self.grid(datatables.decontamination(found.as_dict()))
        for match, text in shown:
            covered = f", {match.share:.0%} of it" if match.kind != "exact" else ""
            where = (
                f"{match.trace}, {match.where}: {match.benchmark} #{match.passage} ({match.kind}{covered})"
            )
            self.line(where)
            self.line(f"  {text}", "dim")
        if len(found.matches) > len(shown):
            self.line(f"and {number(len(found.matches) - len(shown))} more; --json lists all")
        if found.boilerplate:
            self.line("Too common to be evidence, not counted:")
            for phrase in found.boilerplate[:PHRASES]:
                self.line(
                    f"  “{phrase.words}” ({phrase.benchmark}: {number(phrase.items)} items; "
                    f"{number(phrase.queries)} queries)"
                )
            if len(found.boilerplate) > PHRASES:
                self.line(f"  and {number(len(found.boilerplate) - PHRASES)} more phrases")


def _shown(text: str) -> str:
    """Text on one line, line breaks shown."""
    return text.replace("\n", "⏎")
