"""Worker processes that can be killed, and the seal they put on themselves before they see model text.

Verifiers hand text that a model wrote to large parsers (sympy's, those of reasoning-gym). Such text is worked
on where it can be killed, has no secrets in its environment, may write no file, open no connection and start
no process. Parent and worker talk in lines: `Process` is the parent's end, `serve` the worker's.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from dipscope.errors import DipscopeError

READY = b"ready\n"
START_SECONDS = 300.0  # to import everything, on a machine however busy
_READS = ("os.listdir", "os.scandir", "os.fwalk", "os.walk")
_DENIED = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pty.", "urllib.", "signal.", "webbrowser.")


class Process:
    """A running worker. One thread at a time may ask it.

    Args:
        module: the module to run; its main calls `serve`.
        arguments: its command line.

    Raises:
        DipscopeError: the worker does not start (fault).
    """

    def __init__(self, module: str, *arguments: str) -> None:
        environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        environment |= {
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "PYTHONHASHSEED": "0",  # sympy's orders follow it
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment, bufsize=0,
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        self._buffer = b""
        if self._line(START_SECONDS) != READY:
            self.kill()
            fix = f"`python -m {module}` shows why."
            raise DipscopeError("a scoring process does not start", module, fix, fault=True)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def spent(self) -> bool:
        """Whether the kernel ended it for its CPU time."""
        return self._process.poll() == -signal.SIGXCPU

    def ask(self, question: bytes, replies: int, patience: float) -> Iterator[bytes]:
        """Send one line and yield the lines that answer it; fewer than `replies` when the worker died.

        Args:
            question: a line without its end.
            replies: how many lines answer it.
            patience: seconds of wall time for each of them, after which the worker is killed.
        """
        if not self._send(question + b"\n", patience):
            self.kill()
            return
        for _ in range(replies):
            line = self._line(patience)
            if not line:
                self.kill()
                return
            yield line

    def _send(self, data: bytes, patience: float) -> bool:
        view, until = memoryview(data), time.monotonic() + patience
        while view:
            if not _ready(self._in, select.POLLOUT, until):
                return False
            try:
                view = view[os.write(self._in, view[: 1 << 16]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                return False
        return True

    def _line(self, patience: float) -> bytes:
        """The next line with its end; empty when none came."""
        until = time.monotonic() + patience
        parts = [self._buffer]  # joined once: a line may have a hundred megabytes
        while b"\n" not in parts[-1]:
            if not _ready(self._out, select.POLLIN, until):
                return b""
            more = os.read(self._out, 1 << 16)
            if not more:
                return b""
            parts.append(more)
        end, _, self._buffer = parts.pop().partition(b"\n")
        return b"".join([*parts, end, b"\n"])

    def interrupt(self) -> None:
        """Kill the worker from another thread; the thread that asks it then sees it dead."""
        self._process.kill()

    def kill(self) -> None:
        """End the worker at once and let go of its pipes; harmless when it is dead already."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _ready(file: int, event: int, until: float) -> bool:
    waiting = select.poll()  # unlike select, it takes file numbers over 1023
    waiting.register(file, event)
    return bool(waiting.poll(max(0.0, until - time.monotonic()) * 1000))


def serve(answer: Callable[[bytes], Iterator[bytes]], memory: int) -> None:
    """A worker's life: seal, say that it is ready, answer lines until the parent closes or dies.

    Import everything that is needed before this call. What is printed elsewhere goes nowhere.

    Args:
        answer: gives the reply lines, without their ends, to a line.
        memory: most address space in bytes.
    """
    replies = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    _seal(memory)
    os.write(replies, READY)
    for line in sys.stdin.buffer:
        for reply in answer(line):
            os.write(replies, reply + b"\n")


def serve_objects(reply: Callable[[dict[str, Any]], dict[str, Any]], memory: int) -> None:
    """`serve` for a worker that answers a JSON object with another; where it fails, with the key `error`."""

    def answer(line: bytes) -> Iterator[bytes]:
        asked = json.loads(line)
        try:
            said = reply(asked)
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {error}"[:200]}
        yield json.dumps(said).encode()

    serve(answer, memory)


def _watch(parent: int) -> None:
    # The end of standard input does not show as long as a sibling that was forked holds the other end.
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _seal(memory: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    sys.addaudithook(_deny)


def _deny(event: str, args: tuple[Any, ...]) -> None:
    if event == "open":
        flags = args[2] if len(args) > 2 and isinstance(args[2], int) else 0
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise PermissionError(event)
    elif event.startswith(_DENIED) and event not in _READS:
        raise PermissionError(event)


class Kept:
    """A worker that is started when it is first asked, and again after it died or took too long.

    Args:
        module: the worker's module, whose `main` ends in `serve_objects`.
        patience: seconds of wall time for a reply.
        arguments: what the worker finds in `sys.argv`.
    """

    def __init__(self, module: str, patience: float, *arguments: str) -> None:
        self.module, self.patience, self.arguments = module, patience, arguments
        self._process: Process | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The reply to one question; its key `error` says that the worker failed, died or took too long."""
        with self._lock:
            # A process that was forked must not talk to its parent's worker.
            if self._process is None or self._owner != os.getpid() or not self._process.alive:
                self._process, self._owner = Process(self.module, *self.arguments), os.getpid()
            for line in self._process.ask(json.dumps(question).encode(), 1, self.patience):
                reply: dict[str, Any] = json.loads(line)
                return reply
            return {"error": "the worker died or took too long"}
