"""Health stops: training ends where its losses say that going on is a waste; the state is kept."""

from __future__ import annotations

import math
from collections import deque

from dipscope.errors import DipscopeError

# Calibrated on the embedded default and SmolLM2; docs/training.md has the curves.
END_FROM = 20  # steps before the ends of responses are judged
END_TOKENS = 64  # ends that a mean is taken over
END_KNOWN = 1.0  # nats: below it the end has more than 1/e of the probability, and is learned
# (share of its start that the mean loss is below, share of its start that the ends' is above): either
# the loss has halved and the ends have not moved, or it has fallen by a fifth and they have become worse.
NOT_LEARNED = ((0.5, 0.9), (0.8, 1.5))
END_STEPS = 10  # in so many steps in a row
EXPLODED = 2.0  # nats above the loss of the first step, or once more that loss, whichever is greater …
EXPLODED_STEPS = 8  # … in so many steps in a row


class Unhealthy(DipscopeError):
    """Training has been stopped because of what it did, not because of the machine."""

    def __reduce__(self) -> tuple[object, ...]:
        """Stay what it is on the way to the other ranks, which keep the state together."""
        return (type(self), (self.what, self.where, self.fix))


def not_finite(what: str, step: int, where: str) -> Unhealthy:
    """The stop for a loss or gradient that is infinite or not a number."""
    return Unhealthy(
        f"the {what} is not finite at step {step}", where, "Lower the learning rate, or use fp32."
    )


class Health:
    """Watches the steps of one run, which it has to be told in order and from the first.

    A resumed run tells it the lines of its log first, and so stops where it would have stopped in one go.
    """

    def __init__(self, where: str) -> None:
        """`where` is the folder that the loop keeps the state in when a check raises."""
        self.where = where
        self._first_loss = math.nan
        self._exploded = 0
        self._start = _Mean()
        self._recent: deque[_Mean] = deque()
        self._not_learned = 0

    def check(
        self, step: int, loss: float, eos_loss: float | None, eos_tokens: int, grad_norm: float = 0.0
    ) -> None:
        """Take in one step.

        Args:
            step: from 1.
            loss: mean over the supervised tokens, nats.
            eos_loss: mean over those that end a response; None or NaN in a step without one.
            eos_tokens: how many these are.
            grad_norm: global norm of the gradient before clipping.

        Raises:
            Unhealthy: loss or gradient is not finite, the loss has exploded, or the ends of responses are not
                learned while the rest is.
        """
        for what, value in (("loss", loss), ("gradient", grad_norm)):
            if not math.isfinite(value):
                raise not_finite(what, step, self.where)
        if step == 1:
            self._first_loss = loss
        self._check_explosion(step, loss)
        if eos_tokens and eos_loss is not None and not math.isnan(eos_loss):
            self._check_ends(step, _Mean(loss * eos_tokens, eos_loss * eos_tokens, eos_tokens))

    def _check_explosion(self, step: int, loss: float) -> None:
        limit = self._first_loss + max(EXPLODED, self._first_loss)
        self._exploded = self._exploded + 1 if loss > limit else 0
        if self._exploded >= EXPLODED_STEPS:
            raise Unhealthy(
                f"the loss has exploded: above {limit:.1f} in {EXPLODED_STEPS} steps up to step {step}, "
                f"{self._first_loss:.2f} in the first",
                self.where,
                "Lower the learning rate, or warm up for longer. The state is kept there.",
            )

    def _check_ends(self, step: int, now: _Mean) -> None:
        if self._start.tokens < END_TOKENS:
            self._start = self._start.plus(now)
            return
        self._recent.append(now)
        while sum(one.tokens for one in self._recent) - self._recent[0].tokens >= END_TOKENS:
            self._recent.popleft()
        recent = _Mean()
        for one in self._recent:
            recent = recent.plus(one)
        if step < END_FROM or recent.tokens < END_TOKENS:
            return
        bad = recent.end > END_KNOWN and any(
            recent.loss < fallen * self._start.loss and recent.end > stayed * self._start.end
            for fallen, stayed in NOT_LEARNED
        )
        self._not_learned = self._not_learned + 1 if bad else 0
        if self._not_learned >= END_STEPS:
            raise Unhealthy(
                f"the end of a response is not learned: its loss is {recent.end:.2f} at step {step} after "
                f"{self._start.end:.2f} at the start, while the loss fell from {self._start.loss:.2f} to "
                f"{recent.loss:.2f}",
                self.where,
                "Look at how the last tokens of a target are supervised, and at the tokenizer's EOS. "
                "The state is kept there.",
            )


class _Mean:
    """Sums of both losses over steps, weighted by the ends in them."""

    def __init__(self, losses: float = 0.0, ends: float = 0.0, tokens: int = 0) -> None:
        self._losses, self._ends, self.tokens = losses, ends, tokens

    def plus(self, other: _Mean) -> _Mean:
        return _Mean(self._losses + other._losses, self._ends + other._ends, self.tokens + other.tokens)

    @property
    def loss(self) -> float:
        return self._losses / self.tokens

    @property
    def end(self) -> float:
        return self._ends / self.tokens
