"""The exact solver and the checker against brute force, problem by problem."""

import random
import sys
import time
from fractions import Fraction
from itertools import combinations, combinations_with_replacement
from pathlib import Path

import pytest

from dipscope.data.countdown import Options, Problem, Rule, Solver, problems, verify

sys.path.insert(0, str(Path(__file__).parents[1]))
import countdown_brute as brute

SUBSETS = [s for n in range(1, 5) for s in map("".join, combinations("+-*/", n))]


def positive(values):
    return {v for v in values if v > 0}


def multisets(sizes, largest):
    return [c for n in sizes for c in combinations_with_replacement(range(1, largest + 1), n)]


def agrees(numbers, operators, whole):
    """Everything the numbers reach, so solvability for every target at once."""
    solver = Solver(Rule(operators, whole, None))
    found = positive(solver.values(numbers))
    assert found == positive(brute.values(numbers, operators, whole))
    targets = {int(v) for v in found if v.denominator == 1} | set(range(1, 30))
    assert all(solver.reaches(numbers, t) == (t in found) for t in targets)


@pytest.mark.parametrize("operators", SUBSETS)
@pytest.mark.parametrize("whole", [True, False])
def test_solver_reaches_what_brute_force_reaches(operators, whole):
    for numbers in multisets((2, 3), 4) + multisets((4,), 2) + [(1, 3, 4, 6), (2, 3, 5, 7)]:
        agrees(numbers, operators, whole)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
def test_solver_agrees_on_all_small_problems_and_on_five_numbers(whole):
    for numbers in multisets((2, 3), 12) + multisets((4,), 7):
        agrees(numbers, "+-*/", whole)
    rng = random.Random(5)
    drawn = [tuple(sorted(rng.sample(range(1, 100), 5))) for _ in range(10)]
    for numbers in multisets((5,), 3) + drawn:
        agrees(numbers, "+-*/", whole)


@pytest.mark.parametrize(
    ("options", "whole"),
    [
        ({"numbers": "2-3", "largest": 6, "target": "1-40"}, True),
        ({"numbers": "2-3", "largest": 5, "target": "1-40", "operators": "+-*/", "division": "exact"}, False),
        ({"numbers": 4, "largest": 3, "target": "5-60", "operators": "-*/", "limit": 70}, True),
    ],
)
def test_problems_are_those_that_brute_force_solves_within_the_limit(options, whole):
    chosen = Options.of(options)
    limit = chosen.rule.limit

    def inner(v: Fraction) -> bool:
        return v > 0 and max(v.numerator, v.denominator) <= limit

    expected = {
        Problem(numbers, int(v))
        for numbers in multisets(chosen.counts, chosen.largest)
        for v in brute.values(numbers, chosen.operators, whole, inner)
        if v.denominator == 1 and chosen.target_min <= v <= chosen.target_max
    }
    found = [p for rows in problems(chosen).values() for p in rows]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_a_subset_reaches_what_its_subsets_reach():
    numbers = (2, 3, 7, 8)
    solver = Solver(Rule("+-*/", False, None, some=True))
    subsets = [c for n in range(1, 5) for c in combinations(numbers, n)]
    expected = set().union(*(brute.values(c, "+-*/", False) for c in subsets))
    assert positive(solver.values(numbers)) == positive(expected)
    rule = Rule("+-*/", False, 9_999)
    for target in (8, 14, 24, 336):
        alone = sum(Solver(rule).count(c, target) for c in subsets if len(c) > 1) + (target in numbers)
        assert Solver(Rule("+-*/", False, 9_999, some=True)).count(numbers, target) == alone


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("operators", ["+-*/", "+-*", "+-", "-*", "*/"])
def test_solutions_are_counted_as_brute_force_counts_them(operators, whole):
    solver = Solver(Rule(operators, whole, 500))
    for numbers, top in (
        ((2, 3), 8),
        ((3, 4, 9), 40),
        ((2, 5, 6), 40),
        ((1, 2, 3, 4), 24),
        ((1, 3, 4, 6), 24),
    ):
        for target in range(1, top + 1):
            assert solver.count(numbers, target) == brute.count(numbers, target, operators, whole, 500)


@pytest.mark.slow
def test_solutions_of_five_numbers_are_counted_as_brute_force_counts_them():
    for numbers in ((1, 2, 3, 4, 5), (3, 7, 8, 25, 50)):
        for target in (24, 77, 123):
            expected = brute.count(numbers, target, "+-*/", True, 9_999)
            assert Solver(Rule("+-*/", True, 9_999)).count(numbers, target) == expected


def test_order_grouping_and_equal_numbers_make_no_new_solution():
    solver = Solver(Rule("+-*/", True, 99))
    assert solver.count((2, 5, 9), 16) == 1  # 2 + 5 + 9 in any order
    assert solver.count((3, 3), 9) == solver.count((3, 3), 6) == 1
    assert solver.count((2, 2, 4), 8) == 2  # 2 + 2 + 4, (4 * 2 / 2 is 4), 2 * 2 + 4
    assert solver.count((2, 2, 4), 8, at_most=1) == 2
    assert solver.count((2, 5, 9), 98) == 0


def test_a_tree_has_the_value_it_was_asked_for():
    rng = random.Random(0)
    solver = Solver(Rule("+-*/", False, 9_999))
    for n in (2, 3, 4, 5, 6):
        numbers = tuple(sorted(rng.sample(range(1, 60), n)))
        for target in range(10, 40):
            tree = solver.tree(numbers, target, rng)
            assert (tree is not None) == solver.reaches(numbers, target)
            if tree is not None:
                assert brute.value(tree) == target
                assert sorted(
                    map(int, brute.text(tree).translate(str.maketrans("()+-*/", " " * 6)).split())
                ) == list(numbers)


def test_five_numbers_are_solved_well_within_a_tenth_of_a_second_and_six_within_two():
    rng = random.Random(2)
    for n, most in ((5, 0.1), (6, 2.0)):
        seconds = []
        for _ in range(5):
            numbers = rng.sample(range(1, 101), n)
            begun = time.process_time()
            Solver(Rule("+-*/", False, None)).reaches(numbers, rng.randint(100, 999))
            seconds.append(time.process_time() - begun)
        assert sorted(seconds)[2] < most


def checked(numbers, operators, write):
    """Whether each expression is right for its value, and for nothing else."""
    for tree in brute.trees(numbers, operators):
        exact = brute.value(tree)
        response = write(brute.text(tree))
        reached = exact is not None and exact.denominator == 1
        right, other = (int(exact), int(exact) + 1) if reached else (1, 2)
        assert verify(Problem(numbers, right), response).verdict == ("correct" if reached else "wrong")
        assert verify(Problem(numbers, other), response).verdict == "wrong"
        wrong = Problem(tuple(sorted((*numbers[1:], numbers[0] + 1))), right)
        assert verify(wrong, response).verdict == "wrong"


@pytest.mark.parametrize(
    "write", ["Answer: {}", "<think>\n1\n</think>\nSo \\boxed{{{}}}.", "<answer>{}</answer>"]
)
def test_checker_accepts_exactly_the_right_expressions(write):
    for numbers in [*multisets((2,), 5), (1, 1, 1), (1, 1, 2), (2, 3, 6)]:
        checked(numbers, "+-*/", write.format)


@pytest.mark.slow
def test_checker_accepts_exactly_the_right_expressions_of_three_and_four_numbers():
    for numbers in [*multisets((3,), 5), (1, 2, 3, 4), (2, 2, 6, 9)]:
        checked(numbers, "+-*/", "Answer: {}".format)


@pytest.mark.slow
def test_checker_accepts_exactly_the_right_expressions_of_five_numbers():
    checked((1, 2, 2, 3, 3), "+-*/", "Answer: {}".format)
