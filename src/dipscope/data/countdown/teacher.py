"""The teacher: writes a search in plain words, at the rates that are asked for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from dipscope.data.countdown.candidates import draw_failing, draw_working
from dipscope.data.countdown.options import STANDARD, Options
from dipscope.data.countdown.search import Branch, operand, operations
from dipscope.errors import DipscopeError
from dipscope.scoring.countdown.rules import Number, Rule, apart


def respond(
    numbers: Sequence[int],
    target: int,
    rng: random.Random,
    max_branches: int | None = None,
    options: Options = STANDARD,
) -> str:
    """A search trace: failed branches first, then one that works, and the answer.

    Args:
        numbers: in the order of the prompt.
        target: of the problem.
        rng: decides everything that is left open.
        max_branches: most branches that are tried; None takes that of the options.
        options: the rule, the rates and the style.

    Raises:
        DipscopeError: the rule allows no solution.
    """
    if max_branches is not None:
        options = replace(options, max_branches=max_branches)
    rule = options.rule
    working = draw_working(numbers, target, rng, rule)
    if working is None:
        shown = ", ".join(map(str, numbers))
        raise DipscopeError(f"there is no way to {target} from {shown}", "countdown", "Raise 'limit'.")
    branch, last, made = working
    lines = [f"Goal {target} from {', '.join(map(str, numbers))}."]
    for failed in draw_failing(numbers, target, _failures(rng, options), rng, rule):
        if _says(rng, options.subgoals):
            lines += _aim(failed, target, rng, rule)
        lines.append(_tried(failed, target, rule))
        if _says(rng, options.verification or 0.0):
            lines += _doubt(failed, target, rule)
    if _says(rng, options.subgoals):
        lines.append(f"Need {target}, so {last.partition(' = ')[0]} would do.")
    lines.append(_tried(branch, target, rule, last))
    if options.verification is None or _says(rng, options.verification):
        lines.append(f"Check: {made.text} = {target}. Good.")
    thinking = "\n".join(lines)
    answer = f"\\boxed{{{made.text}}}" if options.prompt_style == "list" else made.text
    first = branch.steps[0] if branch.steps else last
    return f"<think>\n{thinking}\n</think>\n{summary(first)}\nAnswer: {answer}"


def _says(rng: random.Random, probability: float) -> bool:
    """A coin that is not thrown where it could fall one way only."""
    return probability >= 1 or (probability > 0 and rng.random() < probability)


def summary(first_step: str) -> str:
    """The words between the thinking block and the answer."""
    return f"Start with {first_step}."


def _failures(rng: random.Random, options: Options) -> int:
    """How many failed branches a trace shows."""
    most = options.max_branches - 1
    if options.backtracking is None:
        return rng.choices(range(most + 1), weights=range(most + 1, 0, -1))[0]
    return sum(_says(rng, options.backtracking / most) for _ in range(most))


def _tried(branch: Branch, target: int, rule: Rule, until: str | None = None) -> str:
    """One line of search; the last operations come in a fixed order, each with its own verdict."""
    last = [step for step, _ in operations(*branch.left, rule)]
    if until is not None:
        last = last[: last.index(until) + 1]
    verdicts = ", ".join(f"{step} {'yes' if step == until else 'no'}" for step in last)
    steps = ", ".join(branch.steps) or str(branch.left[0].value)
    rest = "with" if rule.some else "left"  # where a subset will do, other numbers are left too
    return f"Try {steps}, {rest} {branch.left[1].value}, goal {target}: {verdicts}."


def _doubt(branch: Branch, target: int, rule: Rule) -> list[str]:
    """A check of the best that a failed branch reaches; no line where all of it is beyond the limit."""
    reached = [made for _, made in operations(*branch.left, rule) if rule.named(made.value)]
    if not reached:
        return []
    best = min(reached, key=lambda made: apart(made.value, target))
    return [f"Check: {best.text} = {best.value}, not {target}."]


def _aim(branch: Branch, target: int, rng: random.Random, rule: Rule) -> list[str]:
    """What a failed branch hoped for: a whole partner with which its second term would reach the target.

    No line where the rule has no such partner.
    """
    kept = branch.left[1].value
    sides: list[tuple[str, Number]] = [
        (f"{target - kept} + {operand(kept)}", target - kept),
        (f"{target + kept} - {operand(kept)}", target + kept),
        (f"{operand(kept)} - {kept - target}", kept - target),
        (f"{Fraction(target) / kept} * {operand(kept)}", Fraction(target) / kept),
        (f"{target * kept} / {operand(kept)}", target * kept),
    ]
    hopes = [
        text
        for text, partner in sides
        if text.split()[1] in rule.operators and rule.inner(partner) and partner.denominator == 1
    ]
    return [f"Need {target}, so {rng.choice(hopes)} would do."] if hopes else []
