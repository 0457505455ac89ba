"""Countdown: combine numbers to reach a target. Problems, a search teacher, an exact solver and a checker.

The teacher's trace searches in plain words (try, no, back to another pair, yes, check) and restates the
state in every line, so that a small model never has to look far back for it. Its wording is natural enough
for a pretrained model; with the default options it stays inside a closed vocabulary: words, the numbers 0 to
99 and punctuation. Other options ask for more or larger numbers, other operators, a chosen difficulty, and
chosen rates of failed branches, checks and intermediate goals.
"""

from dipscope.data.countdown.candidates import near_misses, solutions
from dipscope.data.countdown.options import Options
from dipscope.data.countdown.problems import draw, problems, stream
from dipscope.data.countdown.prompts import prompt, read_prompt, shown_numbers
from dipscope.data.countdown.search import Branch, Term, branches, depth, operations
from dipscope.data.countdown.solve import Solver
from dipscope.data.countdown.table import rates, traces
from dipscope.data.countdown.teacher import respond, summary
from dipscope.scoring.countdown.check import judge, verify
from dipscope.scoring.countdown.grammar import evaluate
from dipscope.scoring.countdown.problem import Problem, Split, split_of
from dipscope.scoring.countdown.rules import LIMIT, Rule

__all__ = [
    "LIMIT",
    "Branch",
    "Options",
    "Problem",
    "Rule",
    "Solver",
    "Split",
    "Term",
    "branches",
    "depth",
    "draw",
    "evaluate",
    "judge",
    "near_misses",
    "operations",
    "problems",
    "prompt",
    "rates",
    "read_prompt",
    "respond",
    "shown_numbers",
    "solutions",
    "split_of",
    "stream",
    "summary",
    "traces",
    "verify",
]
