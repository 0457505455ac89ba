"""How many requests a server may hold at once, found out while it works.

Additive increase, multiplicative decrease, as congestion control has it (Chiu and Jain 1989): the limit grows
while responses come as fast as before, by one a response until the first setback and then by one a round, and
halves when the server throttles, fails or times out.
"""

from __future__ import annotations

SLOWER = 4.0  # a batch makes each token slower and the whole faster, up to about this factor
_SMOOTH = 0.1  # weight of the newest response in the running mean


class Pace:
    """The limit of one server.

    Args:
        most: the limit never passes this.
        start: where it begins.
    """

    def __init__(self, most: int, start: int = 4) -> None:
        self.most = most
        self.limit = float(min(start, most))
        self._slow_start = True
        self._cut_at = float("-inf")
        self._mean: float | None = None  # seconds a token
        self._best = float("inf")

    def room(self, in_flight: int) -> bool:
        """Whether one more request may start."""
        return in_flight < int(self.limit)

    def succeeded(self, seconds: float, tokens: int) -> None:
        """Take in a response: how long it took and how many tokens it has."""
        each = seconds / max(tokens, 1)
        self._mean = each if self._mean is None else (1 - _SMOOTH) * self._mean + _SMOOTH * each
        self._best = min(self._best, self._mean)
        if self._mean > SLOWER * self._best:
            self._slow_start = False
            return
        self.limit = min(self.limit + (1.0 if self._slow_start else 1.0 / self.limit), float(self.most))

    def failed(self, started: float, now: float) -> bool:
        """Take in a setback of a request that began at `started`: half the limit, once for all in flight.

        Returns:
            Whether it is news: the request began after the last setback.
        """
        self._slow_start = False
        if started < self._cut_at:
            return False
        self.limit, self._cut_at = max(self.limit / 2, 1.0), now
        return True
