"""The sandbox: programs that mean harm, each tried at every level that keeps them in, and nothing is left."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dipscope.errors import DipscopeError
from dipscope.scoring.sandbox import run
from dipscope.scoring.sandbox.run import Limits, Sandbox

QUICK = Limits(cpu=0.3, wall=1.0, memory=1 << 30, file_bytes=1 << 20, output=1 << 20)
HIDDEN = "a secret of the parent"


@pytest.fixture(scope="module", params=run.DEFAULT_LEVELS)
def sandbox(request):
    if not run.offered(request.param):
        pytest.skip(f"this kernel offers no {request.param}")
    with Sandbox(request.param) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_left(sandbox):
    """Whatever a program did, only guard and server run afterwards, and the next program is served."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 8
    guard = psutil.Process(sandbox._process.pid)
    while len(guard.children(recursive=True)) > 1:  # the watcher of a job needs a moment to end
        time.sleep(0.02)
        assert time.monotonic() - begun < 10
    assert sandbox.script("print(input())", "next", QUICK).output == "next\n"


def told(sandbox, program: str, text: str = "") -> str:
    """What a program prints, which has to come to its end."""
    outcome = sandbox.script(program, text, QUICK)
    assert outcome.status == "ended", outcome
    return outcome.output.strip()


def attempts(*statements: str) -> str:
    """A program that tries each statement and prints how it went."""
    body = "".join(
        f"try:\n    r = {s}\n    print('done', r)\nexcept BaseException as e:\n    print(type(e).__name__)\n"
        for s in statements
    )
    return f"import os, sys, socket, ctypes, signal, subprocess, pathlib, shutil\n{body}"


def test_a_fork_bomb_and_every_other_way_to_a_new_process(sandbox):
    bomb = "import os\ntry:\n    while True: os.fork()\nexcept OSError: print('refused')"
    assert told(sandbox, bomb) == "refused"
    ways = ("os.posix_spawn('/usr/bin/true', ['true'], {})", "os.system('true')", "subprocess.run(['true'])")
    libc = ("ctypes.CDLL(None).fork()", "ctypes.CDLL(None).vfork()")
    for line in told(sandbox, attempts(*ways, *libc)).splitlines():
        assert line in (
            "done -1",
            "done 32512",
            "PermissionError",
            "OSError",
            "FileNotFoundError",
            "done None",
        )
    assert told(
        sandbox,
        "import multiprocessing as m\ntry: m.Process(target=print).start()\nexcept OSError: print('no')",
    )


def test_a_bomb_of_threads_ends(sandbox):
    bomb = (
        "import threading, time\nn = 0\ntry:\n    while n < 20000:\n"
        "        threading.Thread(target=time.sleep, args=(9,), daemon=True).start(); n += 1\n"
        "except RuntimeError: pass\nprint(n)"
    )
    outcome = sandbox.script(bomb, "", QUICK)
    assert outcome.status in ("timeout", "memory", "failed") or int(outcome.output) < 20_000


@pytest.mark.parametrize(
    "program", ["x = bytearray(10 << 30)", "x = [0]\nwhile True: x += x"], ids=["once", "grow"]
)
def test_ten_gigabytes(sandbox, program):
    roomy = Limits(cpu=10.0, wall=20.0, memory=1 << 29)
    assert sandbox.script(program, "", roomy).status == "memory"


def test_the_network(sandbox):
    ways = (
        "socket.create_connection(('1.1.1.1', 80), 1)",
        "socket.create_connection(('127.0.0.1', 22), 1)",
        "socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', '\\0listening')",
    )
    assert not any(line.startswith("done") for line in told(sandbox, attempts(*ways)).splitlines())


def test_writing_and_deleting_outside(sandbox, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("whole")
    stdlib = Path(os.__file__)
    ways = (
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"open({str(mine)!r}, 'a')",
        f"os.remove({str(mine)!r})",
        f"os.truncate({str(mine)!r}, 0)",
        f"os.rename({str(mine)!r}, 'x')",
        f"os.chmod({str(mine)!r}, 0)",
        f"os.utime({str(mine)!r})",
        f"shutil.rmtree({str(tmp_path)!r})",
        f"open({str(stdlib)!r}, 'a')",
        f"os.remove({str(stdlib)!r})",
        "os.mkdir('/usr/x')",
        "os.mkfifo('x')",
    )
    assert not any(line.startswith("done") for line in told(sandbox, attempts(*ways)).splitlines())
    assert mine.read_text() == "whole" and mine.stat().st_mode & 0o400 and stdlib.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_reading_outside_and_through_links(sandbox, tmp_path):
    (tmp_path / "tests.json").write_text(HIDDEN)
    ways = (
        f"open({str(tmp_path / 'tests.json')!r}).read()",
        f"os.listdir({str(tmp_path)!r})",
        f"os.listdir({str(Path(__file__).parent)!r})",
        f"os.symlink({str(tmp_path)!r}, 'link')",
        "open('link/tests.json').read()",
        f"os.link({str(tmp_path / 'tests.json')!r}, 'hard')",
        "open('/etc/passwd').read()",
        "os.listdir('/home')",
        "pathlib.Path.home().joinpath('.ssh').iterdir().__next__()",
    )
    printed = told(sandbox, attempts(*ways))
    assert HIDDEN not in printed
    assert {line for line in printed.splitlines() if line.startswith("done")} <= {
        "done None"
    }  # a link to nowhere


def test_its_parent_cannot_be_reached(sandbox, monkeypatch):
    watched = [
        os.getpid(),
        sandbox._process.pid,
        *(p.pid for p in psutil.Process(sandbox._process.pid).children()),
    ]
    ways = [f"os.kill({pid}, 9)" for pid in (*watched, 0, -1)]
    ways += [
        "os.killpg(0, 9)",
        "os.kill(os.getppid(), 9) if os.getppid() else 1/0",
        "os.setpriority(0, 1, 9)",
    ]
    ways += [
        f"open('/proc/{pid}/{name}', 'rb').read(99)" for pid in watched for name in ("environ", "mem", "maps")
    ]
    ways += [f"ctypes.CDLL(None, use_errno=True).ptrace(16, {pid}, 0, 0) + 1 or 1/0" for pid in watched]
    ways += ["ctypes.CDLL(None).unshare(0x10000000) + 1 or 1/0", "os.listdir('/proc')"]
    printed = told(sandbox, attempts(*ways))
    assert not any(line.startswith("done") for line in printed.splitlines()), printed
    assert psutil.pid_exists(watched[1])


def test_nobody_is_signalled_through_the_owner_of_a_file(sandbox):
    """Whoever owns a socket is sent the signal that was set for it: once a way to kill any process."""
    victim = subprocess.Popen(["sleep", "30"])
    try:
        setting = "fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC), b.send(b'x')"
        ways = [
            f"[fcntl.fcntl(a, 8, {victim.pid}), fcntl.fcntl(a, 10, 9), {setting}]",
            f"[fcntl.fcntl(a, 15, struct.pack('ii', 1, {victim.pid})), fcntl.fcntl(a, 10, 9), {setting}]",
            f"[fcntl.ioctl(a, 0x8901, struct.pack('i', {victim.pid})), {setting}]",
            f"[fcntl.ioctl(a, 0x8902, struct.pack('i', {victim.pid})), {setting}]",
        ]
        begin = "import fcntl, socket, struct\na, b = socket.socketpair()\n"
        printed = told(sandbox, begin + attempts(*ways))
        assert not any(line.startswith("done") for line in printed.splitlines()), printed
        time.sleep(0.1)
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_it_cannot_outlive_its_watcher_nor_keep_the_rights_of_root(sandbox, tmp_path):
    ways = [
        "ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) + 1 or 1/0",
        "__import__('resource').setrlimit(__import__('resource').RLIMIT_AS, (1 << 40, 1 << 40))",
    ]
    printed = told(sandbox, attempts(*ways))
    assert not any(line.startswith("done") for line in printed.splitlines()), printed
    locked = tmp_path / "locked"
    locked.touch(0)
    assert told(sandbox, f"import os; print(os.access({str(locked)!r}, os.R_OK))") == "False"  # root or not


def test_it_inherits_nothing(monkeypatch, sandbox):
    monkeypatch.setenv("SECRET_TOKEN", HIDDEN)
    with Sandbox(sandbox.level) as made:
        look = (
            "import os\nprint(dict(os.environ), os.getcwd())\nprint([f for f in range(64) if not closed(f)])"
        )
        closed = "def closed(f):\n    try: os.fstat(f)\n    except OSError: return True\n    return False\n"
        environment, files = told(made, f"import os\n{closed}{look}").splitlines()
        assert files == "[0, 1, 2]"
        assert not any(word in environment for word in ("SECRET", "HOME", "PATH", str(Path.cwd())))


def test_the_tests_are_not_in_its_memory(sandbox):
    look = (
        "import gc, re\nclass Found(Exception): pass\ndef f(x):\n    for o in gc.get_objects():\n"
        "        for s in (o, *gc.get_referents(o)):\n"
        "            if type(s) in (str, bytes) and re.search(r'marker_\\d+', str(s)): return 2\n    return 0"
    )
    assert sandbox.tests(look, "assert f(1) == 2  # marker_4711", ["f"], QUICK).status == "failed"
    assert (
        sandbox.tests(look, "assert f(1) == 2", ["f"], QUICK, prelude="x = 'marker_4711'").status == "ended"
    )


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "import time\ntime.sleep(60)",
        "import signal\nfor s in (24, 14, 15, 2): signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        "import signal\nsignal.signal(24, lambda *a: None)\nwhile True:\n    try:\n        while True: pass\n"
        "    except BaseException: pass",
        "import resource\ntry: resource.setrlimit(0, (99, 99))\nexcept ValueError: pass\nwhile True: pass",
        "import os\nos.close(1); os.close(2)\nwhile True: pass",
        "import sys\nsys.stdin.read()\n10 ** 10 ** 9",
        "import re\nre.match('(a+)+$', 'a' * 60 + 'b')",
        "import threading\nfor _ in range(4):\n"
        "    threading.Thread(target=lambda: exec('while True: pass')).start()",
    ],
    ids=["loop", "sleep", "deaf", "xcpu", "raise-limit", "closed", "arithmetic", "regex", "threads"],
)  # fmt: skip
def test_time_runs_out(sandbox, program):
    begun = time.monotonic()
    assert sandbox.script(program, "", QUICK).status == "timeout"
    assert time.monotonic() - begun < 5


def test_a_gigabyte_of_output_and_of_errors(sandbox):
    outcome = sandbox.script("import sys\nfor _ in range(1024): sys.stdout.write('x' * (1 << 20))", "", QUICK)
    assert outcome.status == "failed" and "output" in outcome.told and outcome.output == ""
    outcome = sandbox.script("import sys\nfor _ in range(1024): sys.stderr.write('x' * (1 << 20))", "", QUICK)
    assert outcome.status == "timeout" and len(outcome.told) < 1000
    outcome = sandbox.call("def f(): return 'x' * (1 << 30)", "f", [], QUICK)
    assert outcome.status in ("failed", "memory") and outcome.output == ""


def test_its_own_folder_is_empty_small_and_gone(sandbox):
    if sandbox.level != "namespaces":
        assert told(sandbox, attempts("open('x', 'w')")) == "PermissionError"
        return
    assert (
        told(sandbox, "import os\nprint(os.listdir())\nopen('x', 'w').write('y')\nprint(open('x').read())")
        == "[]\ny"
    )
    assert told(sandbox, "import os\nprint(os.listdir())") == "[]"
    fill = (
        "n = 0\ntry:\n    while True:\n        open(str(n), 'wb').write(bytes(1 << 20)); n += 1\n"
        "except OSError: print(n)"
    )
    assert int(told(sandbox, fill)) < 64
    many = (
        "n = 0\ntry:\n    while True:\n        open(str(n), 'wb').close(); n += 1\nexcept OSError: print(n)"
    )
    assert int(told(sandbox, many)) < 2000
    assert told(sandbox, attempts("open('x', 'wb').write(bytes(2 << 20))")) == "OSError"


@pytest.mark.parametrize(
    "program",
    [
        "import os\nos._exit(0)",
        "import sys\nsys.exit(0)",
        "def f(x):\n    import os\n    os._exit(0)",
        "def f(x):\n    raise SystemExit(0)",
        "import os\nos.write(4, b'pass\\n'); os._exit(0)",
        "import os\nfor n in range(3, 64):\n    try: os.write(n, b'pass\\t\\n')\n"
        "    except OSError: pass\nos._exit(0)",
        "import builtins, sys\nbuiltins.AssertionError = Exception\nsys.exit = print\ndef f(x): return 0",
        "class Yes:\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(x): return Yes()",
        "class Yes(int):\n    def __eq__(self, other): return True\ndef f(x): return Yes(0)",
        "def f(x):\n    import sys\n    frame = sys._getframe()\n    while frame:\n"
        "        for v in frame.f_locals.values():\n"
        "            if isinstance(v, str) and '== 2' + chr(48) in v: return 10 * x\n"
        "        frame = frame.f_back\n    return 0",
        "def f(x):\n    import gc\n    if x == 1: return 2\n"
        "    return 20 if any('== 2' + chr(48) in str(o) for o in gc.get_objects()) else 0",
        "def f(x): return f",
        "def f(x):\n    while True: yield 2",
        "this is no program",
        "",
    ],
)  # fmt: skip
def test_success_cannot_be_faked(sandbox, program):
    tests = "assert f(1) == 2\nassert f(10) == 20"
    assert sandbox.tests(program, tests, ["f"], QUICK).status != "ended"
    assert sandbox.tests("def f(x): return 2 * x", tests, ["f"], QUICK).status == "ended"


def test_objects_stay_with_the_program_and_errors_keep_their_kind(sandbox):
    program = (
        "class P:\n    def __init__(self, a): self.a = a; self.b = []\n"
        "    def more(self): self.a += 1; return self\n"
        "def total(ps): return sum(p.a for p in ps)\ndef bad(): raise KeyError('k')\n"
        "def lazy(n):\n    for i in range(n): yield (i, {i}, 1.5, 2**70, b'x', 1j, None, True)"
    )
    tests = (
        "p = P(1)\nassert p.a == 1 and p.b == []\np.a = 5\nassert p.more().a == 6\n"
        "assert total([p, P(2)]) == 8\nassert math.isclose(P(0.5).a, 0.5)\n"
        "try:\n    bad()\nexcept KeyError as e:\n    assert 'k' in e.args[0]\nelse:\n    assert False\n"
        "assert list(lazy(1)) == [(0, {0}, 1.5, 2**70, b'x', 1j, None, True)]"
    )
    outcome = sandbox.tests(program, tests, ["P", "total", "bad", "lazy"], QUICK)
    assert outcome.status == "ended", outcome


def test_classes_preludes_threads_recursion_and_packages(sandbox):
    solution = (
        "class Solution:\n    def f(self, xs: List[int]) -> int:\n        return self.g(xs)\n"
        "    def g(self, xs): return sum(xs)"
    )
    prelude = "from typing import List"
    assert sandbox.call(solution, "f", [[1, 2]], QUICK, prelude=prelude).output == "3"
    assert sandbox.call(solution, "f", [[1, 2]], QUICK, prelude=prelude, bare=True).status == "failed"
    deep = (
        "import sys, threading\nsys.setrecursionlimit(10**6); threading.stack_size(1 << 26)\n"
        "def f(n): return n and 1 + f(n - 1)\n"
        "t = threading.Thread(target=lambda: print(f(50000)))\nt.start(); t.join()"
    )
    assert told(sandbox, deep) == "50000"
    assert told(sandbox, "def f(n): return n and 1 + f(n - 1)\nprint(f(40000))") == "40000"
    roomy = Limits(cpu=20.0, wall=40.0)
    assert (
        sandbox.script(
            "import numpy, sympy\nprint(numpy.arange(4).sum(), sympy.Integer(7))", "", roomy
        ).output
        == "6 7\n"
    )
    assert sandbox.script("import torch", "", roomy).told.startswith("ModuleNotFoundError")


def test_a_program_is_main_and_its_end_is_told(sandbox):
    assert told(sandbox, "if __name__ == '__main__': print(open(0).read().upper())", "text") == "TEXT"
    assert sandbox.script("print(1); import sys; sys.exit(3)", "", QUICK).status == "failed"
    assert sandbox.script("1/0", "", QUICK).told == "ZeroDivisionError: division by zero"
    assert sandbox.script("import ctypes; ctypes.string_at(0)", "", QUICK).status == "failed"
    assert sandbox.script("import os; print(7, flush=True); os._exit(0)", "", QUICK).output == "7\n"
    assert sandbox.script("\ud800", "\ud800", QUICK).status == "failed"


def test_a_dead_interpreter_is_unavailable_and_replaced(sandbox):
    psutil.Process(sandbox._process.pid).children()[0].kill()
    assert sandbox.script("print(1)", "", QUICK).status in ("unavailable", "ended")
    assert sandbox.script("print(1)", "", QUICK).status == "ended"


def test_all_ends_with_the_parent(sandbox):
    code = (
        "import threading, time\nfrom dipscope.scoring.sandbox.run import *\n"
        f"s = Sandbox({sandbox.level!r}); print(s._process.pid, flush=True)\n"
        "s.script('while True: pass', '', Limits(cpu=60, wall=60))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    guard = psutil.Process(int(parent.stdout.readline()))
    deadline = time.monotonic() + 10
    while len(below := guard.children(recursive=True)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(below) >= 3  # the server, a watcher and the program
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs([guard, *below], timeout=10)
    assert not alive


class TestLevels:
    """What is refused, and what has to be asked for."""

    @pytest.fixture(autouse=True)
    def nothing_left(self):
        run.best_level.cache_clear()
        yield
        run.best_level.cache_clear()

    def test_without_walls_it_is_refused_unless_asked_for(self, monkeypatch):
        monkeypatch.setattr(run, "offered", lambda level: level == "limits")
        monkeypatch.delenv(run.UNSAFE, raising=False)
        with pytest.raises(DipscopeError, match="cannot be confined") as caught:
            run.best_level()
        assert caught.value.fault and run.UNSAFE in str(caught.value) and "\n" not in str(caught.value)
        monkeypatch.setenv(run.UNSAFE, "1")
        assert run.best_level() == "limits"

    @pytest.mark.skipif(
        platform.machine() != "x86_64", reason="the number of a system call is that of x86-64"
    )
    def test_where_a_container_refuses_namespaces_landlock_takes_over(self):
        if not run.offered("landlock"):
            pytest.skip("this kernel offers no Landlock")
        code = (  # a filter that refuses `unshare`, as those of containers do
            "import ctypes, struct\nfrom dipscope.scoring.sandbox import kernel, run\n"
            "lines = [(0x20, 0, 0, 0), (0x15, 0, 1, 272), (6, 0, 0, 0x50001), (6, 0, 0, 0x7fff0000)]\n"
            "held = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in lines))\n"
            "kernel.no_new_privileges()\n"
            "program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', 4, ctypes.addressof(held)))\n"
            "kernel.prctl(kernel.PR_SET_SECCOMP, 2, ctypes.addressof(program))\nprint(run.best_level())"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.stdout == "landlock\n", done.stderr

    def test_walls_that_cannot_be_put_up_are_not_offered(self):
        assert not run.offered("moat")
