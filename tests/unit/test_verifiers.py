"""The pool: order, limits, recovery; and hostile input, which only a pool may be given."""

import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from itertools import count, islice

import psutil
import pytest

from dipscope.errors import DipscopeError
from dipscope.scoring import verifiers as module
from dipscope.scoring.base import MISSING
from dipscope.scoring.verifiers import Verifiers
from dipscope.scoring.verify import verify

FAULTY = "faulty_verify_worker"


@pytest.fixture(scope="module")
def pool():
    with Verifiers(1, cpu_seconds=1.0) as made:
        yield made


@pytest.fixture
def faulty(monkeypatch):
    monkeypatch.setattr(module, "WORKER", FAULTY)
    with Verifiers(1, cpu_seconds=0.5) as made:
        yield made


@pytest.fixture
def workers():
    """Gives the worker processes that were started since the test began."""
    before = set(psutil.Process().children())
    return lambda: [child for child in psutil.Process().children() if child not in before]


def test_verdicts_are_those_of_verify_in_the_order_of_the_pairs(pool):
    pairs = [(str(n % 7), f"{n % 5}.0") for n in range(1000)]
    pairs[500:500] = [("5", None), (r"\sqrt{12}", r"2\sqrt{3}"), ("5", r"\frac{"), ("\ud800", "\ud800\x00")]
    found = list(pool.judge(pairs))
    assert found[500] == MISSING
    assert found == [MISSING if said is None else verify(gold, said) for gold, said in pairs]
    assert list(pool.judge([])) == []


def test_pairs_are_read_a_bounded_number_ahead(pool):
    read = count()
    verdicts = pool.judge(("1", str(next(read))) for _ in range(10**9))
    assert [j.verdict for j in islice(verdicts, 3)] == ["wrong", "correct", "wrong"]
    assert next(read) <= module.AHEAD * module.CHUNK + 10


def test_equal_pairs_are_verified_once(faulty):
    first = [j.verdict for j in faulty.judge([("1", "pid")] * 300)]
    again = [j.verdict for j in faulty.judge([("1", "pid")] * 300)]
    assert set(first + again) == {"error"}
    assert sum(faulty.reasons.values()) == 1


def test_a_chunk_loses_only_the_pair_at_fault(faulty):
    pairs = [(str(n), str(n)) for n in range(200)]
    pairs[70] = ("1", "die")
    pairs[71] = ("1", "loop")
    pairs[130] = ("1", "in-c")
    verdicts = [j.verdict for j in faulty.judge(pairs)]
    assert [n for n, verdict in enumerate(verdicts) if verdict != "correct"] == [70, 71, 130]
    assert {verdicts[n] for n in (70, 71, 130)} == {"error"}
    assert faulty.reasons == {"the worker died": 1, "out of time": 2}


def test_an_alarm_that_is_swallowed_is_no_verdict(faulty):
    assert next(faulty.judge([("1", "swallow")])).verdict == "error"
    assert faulty.reasons == {"out of time": 1}


def test_memory_is_bounded_and_its_lack_is_no_difference(monkeypatch):
    monkeypatch.setattr(module, "WORKER", FAULTY)
    pairs = [("1", "allocate"), ("1", "grow"), ("1", "1"), ("1", "2")]
    with Verifiers(1) as verifiers:
        assert [j.verdict for j in verifiers.judge(pairs)] == ["error", "error", "correct", "wrong"]
    assert verifiers.reasons == {"out of memory": 2}


@pytest.mark.slow
def test_a_worker_that_sleeps_is_ended_by_the_wall(faulty, monkeypatch):
    monkeypatch.setattr(module, "WALL", 2.0)
    assert [j.verdict for j in faulty.judge([("1", "sleep"), ("1", "1")])] == ["error", "correct"]


def test_a_worker_killed_from_outside_costs_no_verdict(workers):
    with Verifiers(1) as verifiers:
        verdicts = verifiers.judge((str(n), str(n)) for n in range(600))
        found = [next(verdicts).verdict]
        [worker] = workers()
        worker.kill()
        found += [j.verdict for j in verdicts]
    assert found == ["correct"] * 600 and not verifiers.reasons


@pytest.mark.slow
def test_workers_are_replaced_after_a_number_of_pairs(faulty, monkeypatch):
    monkeypatch.setattr(module, "RECYCLE", 3)
    for batch in range(3):
        assert [j.verdict for j in faulty.judge([("1", f"pid {batch} {n}") for n in range(3)])] == [
            "error"
        ] * 3
    assert len(faulty.reasons) == 3  # as many process ids


def test_threads_share_a_pool_and_alarms_of_the_parent_stay(pool):
    before = signal.getsignal(signal.SIGALRM)
    signal.alarm(1000)
    found: dict[int, list[str]] = {}

    def judge(name: int) -> None:
        found[name] = [j.verdict for j in pool.judge((str(name), str(n)) for n in range(300))]

    threads = [threading.Thread(target=judge, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert signal.alarm(0) > 900 and signal.getsignal(signal.SIGALRM) == before
    for name, verdicts in found.items():
        assert [n for n, verdict in enumerate(verdicts) if verdict == "correct"] == [name]


def _in_a_spawned_process(pairs: list[tuple[str, str]]) -> list[str]:
    with Verifiers(1) as verifiers:
        return [j.verdict for j in verifiers.judge(pairs)]


def test_a_large_parent_does_not_make_its_workers_look_large():
    code = (
        "from dipscope.scoring.verifiers import Verifiers\n"
        "held = b'x' * (1200 << 20)\n"
        "with Verifiers(1) as verifiers:\n"
        "    found = [j.verdict for j in verifiers.judge([('1', '2'), ('1', '3'), ('1', '1')])]\n"
        "print(found, dict(verifiers.reasons))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "['wrong', 'wrong', 'correct'] {}", done.stderr


def test_it_works_in_spawned_processes():
    with multiprocessing.get_context("spawn").Pool(1) as processes:
        assert processes.apply(_in_a_spawned_process, ([("1", "1"), ("1", "2")],)) == ["correct", "wrong"]


def test_no_worker_outlives_the_pool(workers):
    with Verifiers(2) as verifiers:
        assert {j.verdict for j in verifiers.judge((str(n), str(n)) for n in range(400))} == {"correct"}
        started = workers()
        assert 1 <= len(started) <= 2
    _, alive = psutil.wait_procs(started, timeout=5)
    assert not alive
    with pytest.raises(RuntimeError):
        list(verifiers.judge([("3", "4")]))


@pytest.mark.slow
def test_a_pool_closes_while_a_worker_is_busy(monkeypatch):
    monkeypatch.setattr(module, "WORKER", FAULTY)
    begun = time.monotonic()
    with Verifiers(1, cpu_seconds=300) as verifiers:
        threading.Timer(3.0, verifiers.close).start()
        with pytest.raises((RuntimeError, CancelledError)):
            list(verifiers.judge([("1", "loop"), *((str(n), "1") for n in range(300))]))
    assert time.monotonic() - begun < 60


def test_workers_that_do_not_start_are_a_fault(monkeypatch):
    monkeypatch.setattr(module, "WORKER", "no_such_module")
    with Verifiers(1) as verifiers, pytest.raises(DipscopeError, match="does not start") as caught:
        list(verifiers.judge([("1", "1")]))
    assert caught.value.fault


CHEAP = {
    "10k braces": "{" * 10_000,
    "10k parentheses": "(" * 10_000 + "1" + ")" * 10_000,
    "10k fractions": r"\frac{" * 5000 + "1" + "}{2}" * 5000,
    "open boxes": "\\boxed{" * 150_000,
    "a megabyte": "x" * 10**6,
    "null": "5\x00",
    "surrogate": "\ud800 5",
    "400 roots": "+".join(rf"\sqrt{{{n}}}" for n in range(2, 402)),
    "code": "__import__('os').system('true')",
    "100 roots in roots": r"\sqrt{" * 100 + "2" + "}" * 100,
    "commas": "," * 3000,
    "signs": r"\pm" * 500,
    "equals": "=" * 1000,
    "unions": r"\cup" * 500,
    "division by zero": r"\frac{0}{0}",
    "huge exponent": "1e999999999",
    "wide matrix": r"\begin{pmatrix}" + "1&" * 1000 + r"\end{pmatrix}",
    "large sine": r"\sin(10^{30})",
}
COSTLY = {
    "tower": "9^{9^{9^9}}",
    "power of a power": "10^{10^{10}}",
    "factorial": "(10^9)!",
    "factorial of a factorial": "((5!)!)!",
    "binomial": r"\binom{10^8}{10^7}",
    "integral": r"\int_0^1 \frac{\sin(x^2) e^{x^3}}{\ln(x+2)+x^x} dx",
    "sum": r"\sum_{n=1}^{10^9} \frac{1}{n^2+n\sqrt{n}}",
    "product": r"\prod_{n=1}^{\infty} (1+1/n^3)",
    "expansion": "(x+y+z+1)^{200}",
    "continued fraction": r"\frac{1}{1+" * 40 + "1" + "}" * 40,
}
GOLDS = ("5", r"\sqrt{2}+1", "x^2+y^2=1", "[0,1)")


@pytest.mark.parametrize("name", CHEAP)
def test_hostile_text_gets_a_verdict_at_once(pool, name):
    pairs = [(gold, CHEAP[name]) for gold in GOLDS] + [(CHEAP[name], "7")]
    verdicts = [j.verdict for j in pool.judge([*pairs, ("1", "1.0")])]
    assert verdicts.pop() == "correct"
    assert set(verdicts) <= {"wrong", "error"}


@pytest.mark.parametrize("name", ["tower", "factorial"])
def test_what_cannot_be_computed_is_an_error_in_bounded_time(pool, name):
    worker = time.monotonic()
    assert next(pool.judge([("5", COSTLY[name])])).verdict == "error"
    assert time.monotonic() - worker < 60
    assert next(pool.judge([("0.5", f"1/2 {' ' * len(name)}")])).verdict == "correct"


@pytest.mark.slow
@pytest.mark.parametrize("name", COSTLY)
def test_costly_formulas_are_bounded_on_either_side(pool, name):
    pairs = [(gold, COSTLY[name]) for gold in GOLDS] + [(COSTLY[name], r"\sqrt{2}")]
    assert {j.verdict for j in pool.judge(pairs)} <= {"wrong", "error"}
    assert next(pool.judge([("0.25", f"1/4 {' ' * len(name)}")])).verdict == "correct"
