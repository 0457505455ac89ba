"""How a countdown problem is asked, and the question read back."""

from __future__ import annotations

import random
import re

from dipscope.data.countdown.options import PromptStyle
from dipscope.scoring.countdown.problem import Problem

_LIST = re.compile(r"Numbers:\s*\[([\d\s,.]*)\]")
_TARGET = re.compile(r"Target:\s*(-?\d+)\b")
_SHORT = re.compile(
    r"Make (\d+) from (\d+(?:, \d+)*)\. Use each number (once|at most once) with ([-+*/ ]+)\."
)


def prompt(problem: Problem, rng: random.Random, style: PromptStyle = "short") -> str:
    """The user turn; the order of the numbers is drawn.

    `list` carries the two lines by which the published table states its problems, `Numbers: [...]` and
    `Target: n`, in words of our own.
    """
    numbers = list(problem.numbers)
    rng.shuffle(numbers)
    shown = ", ".join(map(str, numbers))
    often = "once" if problem.use == "all" else "at most once"
    operators = " ".join(problem.operators)
    if style == "short":
        return f"Make {problem.target} from {shown}. Use each number {often} with {operators}."
    often = "exactly once" if problem.use == "all" else often
    return (
        f"Find an expression that equals the target. Use each number {often}, with {operators} and"
        f" parentheses only.\nNumbers: [{shown}]\nTarget: {problem.target}\n"
        "Think step by step and put the expression in \\boxed{}."
    )


def shown_numbers(text: str) -> list[int]:
    """The numbers of a prompt of either style in the order it shows them."""
    listed = _LIST.search(text)
    shown = listed[1] if listed else text.partition(" from ")[2]
    return [int(n) for n in re.findall(r"\d+", shown)]


def read_prompt(text: str) -> Problem | None:
    """The problem that a prompt of either style states, or one of the published table; None if none does."""
    short = _SHORT.search(text)
    if short:
        numbers = tuple(sorted(int(n) for n in short[2].split(", ")))
        use = "some" if short[3] == "at most once" else "all"
        return Problem.from_gold(
            {"numbers": numbers, "target": short[1], "operators": short[4].replace(" ", ""), "use": use}
        )
    listed, target = _LIST.search(text), _TARGET.search(text)
    if not listed or not target or not re.search(r"\d", listed[1]):
        return None
    try:
        values = [float(n) for n in listed[1].split(",") if n.strip()]
        use = "some" if "at most once" in text else "all"
        asked = re.search(r", with ([-+*/ ]+) and parentheses", text)
        operators = asked[1].replace(" ", "") if asked else ""
        return Problem.from_gold({"numbers": values, "target": target[1], "operators": operators, "use": use})
    except ValueError:
        return None
