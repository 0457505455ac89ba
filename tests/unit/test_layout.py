"""The house as docs/architecture.md draws it: what there is, what stands on what, and what starting costs."""

import ast
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSE = ROOT / "src/dipscope"
LONGEST = 500  # lines of a module
HEAVY = {"torch", "transformers", "polars", "scipy", "altair"}

MODULES = sorted(p.relative_to(HOUSE).as_posix() for p in HOUSE.rglob("*.py"))


def drawn() -> list[tuple[str, str]]:
    """The list in the document: (path, what is said of it). Folders end in `/`."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    block = re.search(r"^```\nsrc/dipscope/\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert block, "docs/architecture.md has no list of src/dipscope/"
    entries: list[tuple[str, str]] = []
    room = ""
    for line in block[1].splitlines():
        if found := re.fullmatch(r"( {2}| {4})(\w+(?:/|\.\w+)) +(\S.*)", line):
            indent, name, said = found.groups()
            if len(indent) == 2:
                room = name
            entries.append((name if len(indent) == 2 else room + name, said))
        else:
            assert re.match(r" {8,}\S", line), f"neither an entry nor its continuation: {line!r}"
            name, said = entries[-1]
            entries[-1] = name, f"{said} {line.strip()}"
    return entries


def named() -> list[str]:
    """Files that the list names, as paths or patterns below src/dipscope."""
    files = []
    for name, said in drawn():
        if name.endswith("/"):
            files += [f"{name}{file}" for file in re.findall(r"[\w*]+\.(?:py|toml)", said)]
        else:
            files.append(name)
    return files


def rooms() -> list[str]:
    """The rooms from top to bottom: folders without `/`, modules without `.py`."""
    names = [name for name, _ in drawn() if "/" not in name[:-1]]
    return [name.removesuffix("/").removesuffix(".py") for name in names]


def room_of(module: str) -> str:
    """`data/traces.py` is in `data`, `plan.py` is its own room."""
    return module.partition("/")[0].removesuffix(".py")


def imported(source: str) -> list[tuple[int, str]]:
    """(line, room) of every import of dipscope: at the top, in functions and for types alike."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "dipscope":
                room = rest.partition(".")[0]
                there = (HOUSE / room).is_dir() or (HOUSE / f"{room}.py").is_file()
                found.append((node.lineno, room if room and there else "__init__"))
    return found


def test_imports_are_found_wherever_they_stand():
    source = """
import dipscope
import numpy, dipscope.data.traces
from dipscope import __version__, records
from dipscope.errors import DipscopeError
if TYPE_CHECKING:
    from dipscope.study import Study
def f():
    from dipscope import plan as p
"""
    rooms_of_lines = {2: {"__init__"}, 3: {"data"}, 4: {"__init__", "records"}, 5: {"errors"}, 7: {"study"}}
    wanted = {(line, room) for line, found in (rooms_of_lines | {9: {"plan"}}).items() for room in found}
    assert set(imported(source)) == wanted


def test_every_name_of_the_list_exists():
    lost = [name for name, _ in drawn() if not (HOUSE / name).exists()]
    lost += [file for file in named() if not list(HOUSE.glob(file))]
    assert not lost


def test_no_room_is_listed_twice():
    assert len(rooms()) == len(set(rooms()))


def test_every_module_is_in_the_list():
    modules = [m for m in MODULES if m == "__init__.py" or not m.endswith("__init__.py")]
    files = named()
    assert [m for m in modules if not any(fnmatchcase(m, file) for file in files)] == []


def test_a_room_imports_only_what_stands_below_it():
    order = {room: place for place, room in enumerate(rooms())}
    upward = [
        f"{module}:{line} imports {room}"
        for module in MODULES
        for line, room in imported((HOUSE / module).read_text(encoding="utf-8"))
        if room != room_of(module) and order[room] < order[room_of(module)]
    ]
    assert upward == []


def test_no_module_is_too_long():
    lines = {m: len((HOUSE / m).read_text(encoding="utf-8").splitlines()) for m in MODULES}
    assert {m: n for m, n in lines.items() if n > LONGEST} == {}


@pytest.mark.parametrize("words", [["--help"], ["data", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(words):
    code = (
        "import sys\n"
        "from dipscope.cli import main\n"
        f"sys.argv = ['dipscope', *{words}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print('loaded:', *sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    loaded = set(done.stdout.rpartition("loaded: ")[2].split())
    assert "dipscope.cli" in loaded and not loaded & HEAVY
