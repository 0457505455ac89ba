"""reasoning-gym generators as benchmarks, scored in a process of their own."""

import json
from pathlib import Path

import pytest

from dipscope.benchmarks import gym
from dipscope.benchmarks.registry import resolve
from dipscope.errors import DipscopeError
from dipscope.scoring.thinking import split

EASY = "chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1"
COUNTDOWN = "countdown?min_numbers=3&max_numbers=3"


def test_found_by_name_with_its_options() -> None:
    (benchmark,) = resolve([f"gym/{COUNTDOWN}"])
    assert benchmark.name == f"gym/{COUNTDOWN}" and benchmark.domain == "ood_reasoning"
    assert gym.get("gcd", "ood_general").domain == "ood_general"
    numbers = benchmark.items(3, "test")[0].prompt.partition(": ")[2].partition(".")[0]
    assert len(numbers.split(",")) == 3


@pytest.mark.parametrize("name", [EASY, "word_sorting?max_words=4", "syllogism"])
def test_items_are_stable_distinct_and_split(name: str) -> None:
    dev, test = (gym.get(name).items(40, s) for s in ("dev", "test"))
    assert len({i.prompt for i in dev + test}) == len({i.id for i in dev + test}) == len(dev + test)
    assert gym.get(name).items(9, "test") == test[:9]
    assert len(test) == 40 and len(dev) >= 20
    json.dumps([i.gold for i in test])


def test_small_pool_gives_what_there_is() -> None:
    dev, test = (gym.get(EASY).items(1000, s) for s in ("dev", "test"))
    assert 100 < len(dev) + len(test) <= 200  # one digit, plus or minus, one digit


@pytest.mark.parametrize("name", [EASY, COUNTDOWN, "word_sorting", "mini_sudoku", "gcd", "syllogism"])
def test_gold_is_correct_and_another_is_not(name: str) -> None:
    benchmark = gym.get(name)
    for item in benchmark.items(3, "dev"):
        gold = item.gold["answer"]
        said = benchmark.judge(item, split(f"<think>\n…\n</think>\nSo it is.\n**Answer:** {gold}\n"))
        assert said.verdict == "correct" and said.score == 1.0
        wrong = benchmark.judge(item, split("Answer: none of it"))
        assert wrong.verdict == "wrong" and wrong.score == 0.0


@pytest.mark.parametrize("text", ["", "It is four.", "<think>\nAnswer: 4", "Answer:   \n"])
def test_no_answer_is_missing(text: str) -> None:
    benchmark = gym.get(EASY)
    assert benchmark.judge(benchmark.items(1, "dev")[0], split(text)).verdict == "missing"


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        ("Answer: 4", "5", "4"),
        ("Answer: 3\nno, wait\nAnswer: 4\nbye", "x", "4"),
        ("Answer:\n1 2\n3 4", "a\nb", "1 2\n3 4"),
        ("**Answer:** `x`", "y", "x"),
        ("so <answer> a b </answer>", "c", "a b"),
        (r"so \boxed{\frac{1}{2}} it is", "1/3", r"\frac{1}{2}"),
        (r"\boxed{1", "x", None),
        ("nothing", "5", None),
        ("7 - 1 = 6.", "5", "6"),
        ("7 - 1 = 6.", "six", None),
        ("It is 7.\nAnswer:", "7", None),
    ],
)
def test_extraction(text: str, gold: str, expected: str | None) -> None:
    assert gym.extract(text, gold) == expected


def test_answers_are_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "PATIENCE", 8.0)
    benchmark = gym.get(COUNTDOWN)
    item = benchmark.items(1, "dev")[0]
    trap = tmp_path / "trap"
    for text in (
        f"__import__('os').system('touch {trap}')",
        f"open('{trap}', 'w').write('x')",
        f"__import__('subprocess').run(['touch', '{trap}'])",
    ):
        assert benchmark.judge(item, split(f"Answer: {text}")).verdict in ("wrong", "error")
    assert not trap.exists()
    assert benchmark.judge(item, split(f"Answer: {item.gold['answer']}")).verdict == "correct"


def test_endless_verifier_is_an_error_and_the_next_answer_is_scored(monkeypatch) -> None:
    benchmark = gym.get(COUNTDOWN)
    item = benchmark.items(1, "dev")[0]
    gold = split(f"Answer: {item.gold['answer']}")
    assert benchmark.judge(item, gold).verdict == "correct"
    monkeypatch.setattr(gym, "PATIENCE", 0.5)
    judged = benchmark.judge(item, split("Answer: 9**9**9**9"))
    assert judged.verdict == "error" and judged.score is None
    monkeypatch.setattr(gym, "PATIENCE", 60.0)
    assert benchmark.judge(item, gold).verdict == "correct"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("contdown", "countdown"),
        ("countdown?min_number=3", "min_numbers"),
        ("countdown?min_numbers=three", "no int"),
        ("countdown?shuffle=maybe", "no bool"),
        ("countdown?min_numbers=6&max_numbers=3", "refuses"),
        ("countdown?seed=3", "seed"),
    ],
)
def test_mistakes_are_explained(name: str, message: str) -> None:
    with pytest.raises(DipscopeError, match=message) as caught:
        gym.get(name)
    assert caught.value.exit_code == 2 and caught.value.where.startswith("gym/")


def test_option_types() -> None:
    benchmark = gym.get("countdown?operators=%2B,-".replace("%2B", "+") + "&shuffle=false")
    assert benchmark.config == {"operators": ["+", "-"], "shuffle": False}
