"""Self-replay: what is kept, what decides it, and when it gives up."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest

from dipscope.benchmarks.small import BENCHMARKS
from dipscope.data.replay import general_prompts, replay
from dipscope.engine.base import Completion, Request
from dipscope.errors import DipscopeError

STOP = 0


class Letters:
    """A tokenizer whose tokens are characters."""

    chat_template = "{{ messages }}"
    eos_token_id = STOP
    all_special_ids = (STOP,)
    added_tokens_decoder: ClassVar[dict[int, str]] = {}

    def apply_chat_template(self, messages, add_generation_prompt=False, tokenize=True, return_dict=False):
        text = "".join(m["content"] for m in messages)
        return [ord(c) for c in text] if tokenize else text

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join(map(chr, ids))


class Parrot:
    """Answers with the seed; ends by itself when the seed is divisible by `ends`. Arrives back to front."""

    def __init__(self, ends: int, words: bool = True) -> None:
        self.ends, self.words, self.asked = ends, words, list[Request]()

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        self.asked += requests
        for r in reversed(requests):
            text = str(r.seed) if self.words else " \n"
            finish = "stop" if r.seed % self.ends == 0 else "length"
            yield Completion(r.key, tuple(map(ord, text)), finish)


def run(engine, n=20, seed=0, prompts=("a", "b", "c"), **options):
    return replay(engine, Letters(), n, seed, prompts, **options)


def test_only_answers_that_ended_are_kept() -> None:
    engine = Parrot(ends=3)
    traces = run(engine)
    assert len(traces) == 20 and len({t.id for t in traces}) == 20
    assert all(int(t.response) % 3 == 0 for t in traces)
    assert all(t.origin == "replay" for t in traces)
    assert len({t.response for t in traces}) == 20  # a prompt asked again is answered anew
    assert {r.sampling.temperature for r in engine.asked} == {0.7}
    assert {r.sampling.max_tokens for r in engine.asked} == {160}
    assert {t.query for t in traces if t.prompt == "a"} == {next(t.query for t in traces if t.prompt == "a")}


def test_result_is_a_function_of_the_seed() -> None:
    assert run(Parrot(3)) == run(Parrot(3))
    assert run(Parrot(3), seed=1) != run(Parrot(3))
    assert [t.response for t in run(Parrot(1), n=5)] == [t.response for t in run(Parrot(1), n=9)[:5]]


def test_endless_prompts_and_progress() -> None:
    def endless() -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield f"prompt {number}"

    seen = []
    traces = run(Parrot(2), prompts=endless(), report=lambda *a: seen.append(a[:2]))
    assert len({t.prompt for t in traces}) == 20
    assert seen[-1] == (20, 20) and all(0 <= a <= 20 for a, _ in seen)


@pytest.mark.parametrize("engine", [Parrot(ends=10**9), Parrot(ends=1, words=False)])
def test_gives_up_after_a_bound(engine: Parrot) -> None:
    with pytest.raises(DipscopeError, match="0 of 10 replay answers"):
        run(engine, n=10)
    assert len(engine.asked) == 80


def test_general_prompts_are_many_and_seeded() -> None:
    prompts = general_prompts(0)
    assert prompts == general_prompts(0) != general_prompts(1)
    assert len(set(prompts)) == len(prompts) > 500
    with_digits = sum(any(c.isdigit() for c in p) for p in prompts) / len(prompts)
    assert 0.2 < with_digits < 0.5


def test_no_benchmark_asks_a_replay_prompt() -> None:
    measured = {i.prompt for b in BENCHMARKS.values() for s in ("dev", "test") for i in b.items(3000, s)}
    assert not measured & {p for seed in range(5) for p in general_prompts(seed)}
