"""The requests in flight: over several servers in turn, each at its own pace, with retries.

One event loop in a thread of its own holds every request. A server that fails rests, so that one that dies
slows nothing down but itself. A request that fails is tried again, elsewhere where there is an elsewhere;
what cannot be answered becomes a draft with finish `error`, and only what would fail for every prompt ends
the run.
"""

from __future__ import annotations

import asyncio
import heapq
import queue
import random
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dipscope.engine import reply
from dipscope.engine.pace import Pace
from dipscope.engine.reply import Trouble
from dipscope.engine.text import Ask, Draft

if TYPE_CHECKING:
    from httpx2 import AsyncClient

    from dipscope.engine.server import ServerWriter

IN_A_ROW = 8  # requests given up before any was answered that end the run
BROKEN = 3  # failures in a row of every server that end it, in attempts of one request
CONNECT = 10.0  # seconds to reach a server
_BACKLOG = 512  # drafts waiting to be taken; above it nothing new starts
_LONGEST = 30.0  # seconds of back-off


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        timeout: seconds for one response.
        attempts: tries of one request before it is given up; being throttled is not a try.
        backoff: seconds before the second try; each later one waits twice as long, at most half a minute.
        throttled: seconds that one request may be put off by a server that asks to wait.
        in_flight: most requests that one server holds.
    """

    timeout: float = 1800.0
    attempts: int = 6
    backoff: float = 1.0
    throttled: float = 3600.0
    in_flight: int = 256


@dataclass
class _Server:
    """One endpoint and what is known of its state; times are those of `time.monotonic`."""

    url: str
    client: AsyncClient
    pace: Pace
    in_flight: int = 0
    failures: int = 0  # in a row
    rests_until: float = 0.0

    def free(self, now: float) -> bool:
        return now >= self.rests_until and self.pace.room(self.in_flight)


@dataclass
class _Job:
    """One ask on its way."""

    ask: Ask
    body: bytes
    attempts: int = 0
    waited: float = 0.0
    lost: int = 0
    last: _Server | None = field(default=None, repr=False)


class Run:
    """One call of `write`: the thread's side of it."""

    def __init__(self, writer: ServerWriter, asks: Iterable[Ask]) -> None:
        self.writer, self.asks = writer, iter(asks)
        self.out: queue.SimpleQueue[Draft | BaseException | None] = queue.SimpleQueue()
        self.rng = random.Random(f"back-off {writer.seed}")
        self.heap: list[tuple[float, int, _Job]] = []  # ready at, order, job
        self.order = 0
        self.servers: list[_Server] = []
        self.turn = 0
        self.answered = self.given_up = 0
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        self._cancelled = False

    def main(self) -> None:
        """Run to the end and leave None, or the exception that ended it, as the last item."""
        try:
            with self._lock:
                self._task = self._loop.create_task(self._work())
                if self._cancelled:
                    self._task.cancel()
            self._loop.run_until_complete(self._task)
            self.out.put(None)
        except asyncio.CancelledError:
            self.out.put(None)
        except BaseException as error:
            self.out.put(error)
        finally:
            with self._lock:
                self._loop.close()

    def cancel(self) -> None:
        """Stop, from the other thread; harmless when it is over."""
        with self._lock:
            self._cancelled = True
            if self._task is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._task.cancel)

    async def _work(self) -> None:
        from httpx2 import AsyncClient, Limits, Timeout

        patience = self.writer.patience
        async with AsyncExitStack() as stack:
            for url in self.writer.urls:
                client = AsyncClient(
                    headers=self.writer.headers(),
                    timeout=Timeout(patience.timeout, connect=min(CONNECT, patience.timeout), pool=None),
                    limits=Limits(max_connections=None, max_keepalive_connections=patience.in_flight),
                    trust_env=not is_here(url),  # no proxy stands between this machine and itself
                )
                await stack.enter_async_context(client)
                self.servers.append(_Server(url, client, Pace(patience.in_flight)))
            running: dict[asyncio.Task[Draft | Trouble], tuple[_Job, _Server, float]] = {}
            try:
                while True:
                    wake = self._start(running)
                    if not running and not self.heap and wake is None:
                        return
                    if running:
                        done, _ = await asyncio.wait(
                            running, timeout=wake, return_when=asyncio.FIRST_COMPLETED
                        )
                        for task in done:
                            self._finish(*running.pop(task), task.result())
                    else:
                        await asyncio.sleep(wake or 0.0)
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    def _start(
        self, running: dict[asyncio.Task[Draft | Trouble], tuple[_Job, _Server, float]]
    ) -> float | None:
        """Start what can start; return the seconds until more can, or None when only a response helps."""
        while True:
            now = time.monotonic()
            if self.out.qsize() > _BACKLOG:
                return 0.05
            ready = bool(self.heap) and self.heap[0][0] <= now
            free = [s for s in self.servers if s.free(now)]
            if not free:
                resting = [s.rests_until for s in self.servers if s.rests_until > now]
                return min(resting) - now if resting else None
            if ready:
                job = heapq.heappop(self.heap)[2]
            elif (ask := next(self.asks, None)) is not None:
                job = _Job(ask, self.writer.body(ask))
            else:
                return self.heap[0][0] - now if self.heap else None
            server = self._choose(free, job)
            server.in_flight += 1
            job.last = server
            running[asyncio.ensure_future(self._attempt(job, server))] = (job, server, now)

    def _choose(self, free: Sequence[_Server], job: _Job) -> _Server:
        """The next server in turn, but not the one that failed this job, where there is another."""
        others = [s for s in free if s is not job.last] or list(free)
        self.turn += 1
        return min(others, key=lambda s: (self.servers.index(s) - self.turn) % len(self.servers))

    async def _attempt(self, job: _Job, server: _Server) -> Draft | Trouble:
        from httpx2 import ConnectError, ConnectTimeout, HTTPError, InvalidURL, ReadTimeout, TimeoutException

        limit = self.writer.patience.timeout
        try:
            async with asyncio.timeout(limit + CONNECT):  # a trickle of bytes does not count as a response
                got = await server.client.post(f"{server.url}{self.writer.endpoint}", content=job.body)
        except (ConnectError, ConnectTimeout):
            return Trouble("unreachable", "it cannot be reached")
        except (TimeoutException, TimeoutError) as error:
            lost = isinstance(error, ReadTimeout | TimeoutError)
            return Trouble("failed", f"no response within {limit:g} s", lost=lost)
        except (HTTPError, InvalidURL) as error:
            return Trouble("failed", f"the connection broke ({type(error).__name__})", lost=True)
        return reply.read(got.status_code, got.headers, got.content, job.ask, opened=self.writer.opened)

    def _finish(self, job: _Job, server: _Server, started: float, outcome: Draft | Trouble) -> None:
        """Take in how an attempt ended."""
        now = time.monotonic()
        server.in_flight -= 1
        if isinstance(outcome, Draft):
            server.failures = 0
            server.pace.succeeded(now - started, outcome.n_tokens or len(outcome.text) // 4)
            self.answered += 1
            self._put(job, outcome)
            return
        job.lost += outcome.lost
        if outcome.kind == "fatal":
            raise self.writer.failure(outcome, server.url)
        if outcome.kind == "refused":
            server.failures = 0
            self._give_up(job, server, outcome)
        else:
            self._again(job, server, started, outcome)

    def _again(self, job: _Job, server: _Server, started: float, trouble: Trouble) -> None:
        """Put a job off, or give it up, or see that there is no server left."""
        patience, now = self.writer.patience, time.monotonic()
        throttled, nobody = trouble.kind == "throttled", trouble.kind == "unreachable"
        # requests that were in flight together tell of one setback, not of many
        if trouble.kind != "garbled" and server.pace.failed(started, now):
            server.failures += 1
            if server.failures > 1 or nobody:
                server.rests_until = now + self._pause(server.failures)
        if trouble.after is not None:
            server.rests_until = max(server.rests_until, now + trouble.after)
        job.attempts += not throttled
        pause = max(self._pause(server.failures if throttled else job.attempts), trouble.after or 0.0)
        job.waited += pause if throttled else 0.0
        dead = patience.attempts * (1 if nobody else BROKEN)
        if job.waited > patience.throttled or (
            not throttled and all(s.failures >= dead for s in self.servers)
        ):
            raise self.writer.failure(trouble, server.url)
        if job.attempts >= patience.attempts:
            self._give_up(job, server, trouble)
            return
        self.order += 1
        heapq.heappush(self.heap, (now + pause, self.order, job))

    def _give_up(self, job: _Job, server: _Server, trouble: Trouble) -> None:
        """Make an error of a job, unless nothing but errors has come so far."""
        self.given_up += 1
        if self.given_up >= IN_A_ROW and not self.answered:
            raise self.writer.failure(trouble, server.url)
        self._put(job, Draft(job.ask.key, "", "error", reason=trouble.reason))

    def _pause(self, tries: int) -> float:
        """Exponential back-off with jitter: half to one and a half of its nominal length."""
        nominal = min(self.writer.patience.backoff * 2.0 ** max(tries - 1, 0), _LONGEST)
        return nominal * (0.5 + self.rng.random())

    def _put(self, job: _Job, draft: Draft) -> None:
        self.out.put(replace(draft, lost=job.lost, reason=self.writer.without_key(draft.reason)))


def is_here(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
