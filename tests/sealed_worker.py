"""A worker for the tests of `scoring.process`: does what the line says, and tells how it went."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dipscope.scoring.process import serve


def _do(task: str, argument: str) -> str:
    if task == "echo":
        return argument
    if task == "environment":
        return ",".join(sorted(os.environ))
    if task == "read":
        return Path(argument).read_text()
    if task == "write":
        Path(argument).write_text("x")
    elif task == "connect":
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    elif task == "run":
        subprocess.run(["true"], check=True)
    elif task == "system":
        os.system("true")
    elif task == "allocate":
        bytearray(int(argument))
    elif task == "sleep":
        time.sleep(float(argument))
    elif task == "die":
        os._exit(3)
    return "done"


def answer(line: bytes) -> Iterator[bytes]:
    for task in line.decode().strip().split(" ; "):
        name, _, argument = task.partition(" ")
        try:
            yield _do(name, argument).encode()
        except Exception as error:
            yield type(error).__name__.encode()


if __name__ == "__main__":
    if sys.argv[1:] == ["broken"]:
        raise SystemExit(1)
    serve(answer, 1 << 30)
