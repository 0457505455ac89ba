"""Training is stopped where it has gone wrong, and never where it is only slow or noisy."""

import math
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipscope.train.health import Health, Unhealthy

# The embedded size S on 16 Countdown traces a step, mean loss over all tokens and over the ends. The slow run
# has lr 1e-4, a fifteenth of the demo's; in the masked one, at the demo's, ends give no gradient.
SLOW_LOSS = [
    2.66, 2.66, 2.84, 2.75, 2.92, 3.18, 2.55, 2.82, 2.88, 2.79, 2.42, 2.80, 2.62, 2.61, 2.61, 2.58,
    2.43, 2.53, 2.42, 2.60, 2.12, 2.56, 2.61, 2.32, 2.43, 2.14, 2.30, 2.30, 2.01, 1.96, 2.00, 1.94,
    1.94, 1.84, 1.75, 1.61, 1.83, 1.65, 1.98, 1.97, 1.66, 1.51, 1.50, 1.64, 1.79, 1.53, 1.59, 1.43,
]  # fmt: skip
SLOW_ENDS = [
    3.09, 1.93, 3.33, 2.88, 3.77, 1.69, 2.55, 2.72, 1.78, 3.29, 4.02, 2.86, 1.24, 2.60, 2.13, 5.35,
    3.32, 3.19, 1.79, 1.70, 2.09, 1.72, 2.61, 2.40, 1.64, 2.67, 1.22, 2.26, 3.00, 3.30, 1.61, 2.30,
    1.66, 1.59, 0.83, 1.56, 1.35, 1.50, 0.30, 0.77, 1.68, 1.38, 0.75, 0.61, 0.84, 0.74, 0.62, 1.34,
]  # fmt: skip
MASKED_LOSS = [
    2.66, 2.63, 2.76, 2.58, 2.66, 2.75, 2.08, 2.15, 2.04, 1.81, 1.53, 1.54, 1.36, 1.24, 1.15, 1.07,
    0.89, 0.88, 0.76, 0.74, 0.60, 0.61, 0.61, 0.42, 0.41, 0.37, 0.36, 0.34, 0.28, 0.30, 0.27, 0.27,
]  # fmt: skip
MASKED_ENDS = [
    3.09, 1.92, 3.33, 2.83, 3.69, 1.93, 2.27, 2.62, 2.55, 3.59, 3.82, 3.20, 1.34, 3.84, 3.12, 6.15,
    3.74, 2.90, 3.21, 3.97, 3.78, 4.16, 5.42, 4.73, 5.63, 7.29, 4.98, 6.12, 7.26, 5.62, 4.80, 4.65,
]  # fmt: skip


def told(health, losses, ends, tokens=16):
    """The step at which it stops, and what it says; None where it does not."""
    for step, (loss, end) in enumerate(zip(losses, ends, strict=True), 1):
        try:
            health.check(step, loss, end, tokens, grad_norm=1.0)
        except Unhealthy as stop:
            return step, str(stop)
    return None


def test_slow_and_noisy_training_goes_on():
    assert told(Health("run"), SLOW_LOSS, SLOW_ENDS) is None


def test_masked_ends_are_found_in_one_line():
    step, said = told(Health("runs/k/resume"), MASKED_LOSS, MASKED_ENDS)
    assert step == 29
    assert said.startswith("runs/k/resume: the end of a response is not learned: its loss is 6.41 at step 29")
    assert "\n" not in said


def test_ends_are_not_judged_while_the_rest_is_not_learned_either():
    assert told(Health("run"), [2.0] * 100, [3.0] * 100) is None


def test_ends_that_the_base_knows_already_may_stay():
    assert (
        told(Health("run"), [2.0 * 0.95**n for n in range(100)], [0.05 + 0.001 * n for n in range(100)])
        is None
    )


def test_ends_that_the_base_knew_and_loses_are_found():
    ends = [min(0.05 * 1.2**n, 9.0) for n in range(60)]
    assert told(Health("run"), [2.0 * 0.97**n for n in range(60)], ends)[0] <= 40


def test_steps_without_an_end_say_nothing():
    health = Health("run")
    for step in range(1, 100):
        health.check(step, 2.0 * 0.95**step, None if step % 2 else math.nan, 0)


def test_few_ends_take_more_steps():
    losses, ends = [2.0 * 0.95**n for n in range(200)], [4.0] * 200
    many, few = (told(Health("run"), losses, ends, tokens)[0] for tokens in (256, 1))
    assert 29 <= many < 64 + 64 < few < 150


@given(
    st.floats(0.1, 12), st.floats(0.1, 20), st.floats(0.9, 0.999), st.floats(0.9, 1.0), st.integers(1, 300),
    st.integers(0, 2**32),
)  # fmt: skip
def test_ends_that_fall_as_fast_as_the_rest_never_stop_it(loss, end, fall, faster, tokens, seed):
    draw = random.Random(seed)
    noise = [math.exp(draw.uniform(-0.1, 0.1)) for _ in range(300)]
    losses = [loss * fall**n for n in range(150)]
    ends = [end * (fall * faster) ** n * e for n, e in enumerate(noise[:150])]
    assert told(Health("run"), losses, ends, tokens) is None


@given(st.floats(0.05, 12), st.integers(0, 2**32))
def test_a_loss_that_stays_below_twice_its_start_is_no_explosion(start, seed):
    draw = random.Random(seed)
    health = Health("run")
    for step in range(1, 200):
        health.check(step, start if step == 1 else draw.uniform(0, 2 * start), None, 0)


def test_a_spike_is_no_explosion_and_a_plateau_above_the_start_is_one():
    spike = [1.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 0.9] * 5
    assert told(Health("run"), spike, [0.1] * 45) is None
    step, said = told(Health("run"), [1.0] * 30 + [9.0] * 20, [0.1] * 50)
    assert step == 38
    assert said == (
        "run: the loss has exploded: above 3.0 in 8 steps up to step 38, 1.00 in the first. "
        "Lower the learning rate, or warm up for longer. The state is kept there."
    )


@pytest.mark.parametrize(("loss", "norm", "what"), [(math.nan, 1.0, "loss"), (1.0, math.inf, "gradient")])
def test_what_is_not_finite_stops_at_once(loss, norm, what):
    with pytest.raises(Unhealthy, match=f"the {what} is not finite at step 5"):
        Health("run").check(5, loss, 1.0, 16, norm)


def test_it_survives_the_trip_between_processes_as_an_error_of_the_input():
    with pytest.raises(Unhealthy) as caught:
        Health("run").check(1, math.nan, None, 0)
    back = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(back, Unhealthy) and str(back) == str(caught.value) and back.exit_code == 2
