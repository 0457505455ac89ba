"""The walls around programs: what a process sees of the machine, by level.

`namespaces`: a root of its own that holds the standard library and nothing else, an empty folder in memory to
write to, no network, no other process in sight. `landlock`: for containers where the kernel refuses new
namespaces: files outside the standard library cannot be read and none can be written; other processes can be
seen but not touched. `limits`: neither; only what a filter of system calls and resource limits do.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import resource
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path

from dipscope.scoring.sandbox import filter as calls
from dipscope.scoring.sandbox import kernel

PACKAGES = ("numpy", "sympy", "mpmath")  # what a program may import besides the standard library
FOLDER = "/program"  # a program's working folder, in a root of its own
FILES = "size=32m,nr_inodes=1024,mode=777"  # all that it may hold
NOBODY = 65534
_STAGES = ("/mnt", "/media", "/srv", "/opt", "/tmp", "/var")  # one of them is covered by the new root
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_SINGLE = (
    "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo",
    "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom",
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """What programs may read.

    Attributes:
        paths: files, and folders with all below them.
        packages: how `PACKAGES` are imported, as far as they are installed.
    """

    paths: tuple[Path, ...]
    packages: dict[str, ModuleSpec]

    @classmethod
    def here(cls) -> View:
        """The standard library, what it is linked with, and `PACKAGES`."""
        base = (sysconfig.get_path("stdlib"), f"{sys.base_prefix}/lib", f"{sys.base_exec_prefix}/lib")
        paths = [Path(p) for p in (*_SYSTEM, *_SINGLE, *base)]
        packages = {name: spec for name in PACKAGES if (spec := importlib.util.find_spec(name))}
        for name, spec in packages.items():
            for place in spec.submodule_search_locations or ():
                paths += [Path(place), Path(place).parent / f"{name}.libs"]
        return cls(tuple(dict.fromkeys(p for p in paths if p.exists())), packages)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """As a finder of `sys.meta_path`."""
        return self.packages.get(name)


def readable(path: str, view: View) -> bool:
    """Whether a program can read a folder."""
    return any(Path(path).is_relative_to(p) for p in view.paths)


def enter_namespaces(view: View) -> bool:
    """Put the calling process, which has one thread, behind the walls; its children are the first inside.

    Returns:
        Whether a second user is known inside, `nobody`, which only root can lend.

    Raises:
        OSError: the kernel refuses.
    """
    user, group, privileged = os.geteuid(), os.getegid(), os.geteuid() == 0
    with _mapped_by_another(user, group, privileged):
        kernel.unshare(
            kernel.NEW_USER | kernel.NEW_MOUNT | kernel.NEW_PID | kernel.NEW_NETWORK | kernel.NEW_IPC
            | kernel.NEW_NAMES
        )  # fmt: skip
    kernel.mount("none", "/", None, kernel.RECURSIVE | kernel.PRIVATE)
    root = next(p for p in _STAGES if Path(p).is_dir() and not any(s.is_relative_to(p) for s in view.paths))
    kernel.mount("tmpfs", root, "tmpfs", kernel.NO_SETUID | kernel.NO_DEVICES, "size=1m,mode=755")
    for path in view.paths:
        _show(path, Path(root))
    (Path(root) / FOLDER.lstrip("/")).mkdir(exist_ok=True)
    kernel.pivot_root(root)
    kernel.mount("none", "/", None, kernel.REMOUNT | kernel.BIND | kernel.READ_ONLY | _kept("/"))
    return privileged


@contextlib.contextmanager
def _mapped_by_another(user: int, group: int, privileged: bool) -> Iterator[None]:
    """Inside, a helper outside the new user namespace says who is who in it; root also lends `nobody`."""
    me = os.getpid()
    ready, go = os.pipe()
    helper = os.fork()
    if helper == 0:
        code = 1
        try:
            os.close(go)
            if os.read(ready, 1):
                lent = f"\n1 {NOBODY} 1" if privileged else ""
                process = Path(f"/proc/{me}")
                if not privileged:
                    (process / "setgroups").write_text("deny")
                (process / "uid_map").write_text(f"0 {user} 1{lent}")
                (process / "gid_map").write_text(f"0 {group} 1{lent}")
                code = 0
        finally:
            os._exit(code)
    try:
        yield
        os.write(go, b".")
    finally:
        os.close(go)
        os.close(ready)
        _, status = os.waitpid(helper, 0)
    if status:
        raise OSError("the ids of a user namespace cannot be mapped")


def _show(path: Path, root: Path) -> None:
    """Let a file or folder appear below `root` under its own name, read-only."""
    place = root / path.relative_to("/")
    if place.exists():  # below something that is shown already
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        place.symlink_to(path.readlink())
        return
    if path.is_dir():
        place.mkdir()
    else:
        place.touch()
    kernel.mount(str(path), str(place), None, kernel.BIND | kernel.RECURSIVE)
    device = str(path).startswith("/dev/")
    flags = kernel.REMOUNT | kernel.BIND | _kept(str(place)) | (0 if device else kernel.NO_DEVICES)
    kernel.mount("none", str(place), None, flags | kernel.READ_ONLY | kernel.NO_SETUID)


def _kept(path: str) -> int:
    """The flags of a mount that may not be taken from it; access times are `relatime` by default."""
    told = os.statvfs(path).f_flag
    pairs = (
        (os.ST_NOSUID, kernel.NO_SETUID), (os.ST_NODEV, kernel.NO_DEVICES), (os.ST_NOEXEC, kernel.NO_EXECUTE),
        (os.ST_NOATIME, kernel.NO_TIMES), (os.ST_NODIRATIME, kernel.NO_FOLDER_TIMES),
    )  # fmt: skip
    return sum(flag for bit, flag in pairs if told & bit)


def fresh_folder() -> None:
    """An empty folder in memory at `FOLDER`, over what was there."""
    with contextlib.suppress(OSError):
        kernel.unmount(FOLDER)
    flags = kernel.NO_SETUID | kernel.NO_DEVICES | kernel.NO_EXECUTE
    kernel.mount("tmpfs", FOLDER, "tmpfs", flags, FILES)


def restrict(level: str, view: View, lent: bool, *, seconds: int, memory: int, file_bytes: int) -> None:
    """The last walls, put up by the process itself before it runs a program; none can be taken down.

    Args:
        level: where it runs.
        view: what it may read.
        lent: whether there is a second user to become.
        seconds: CPU time after which the kernel ends it.
        memory: most address space in bytes.
        file_bytes: longest file that it may write.

    Raises:
        OSError: the kernel refuses.
    """
    limits = {
        resource.RLIMIT_CPU: seconds, resource.RLIMIT_AS: memory, resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: 64,
    }  # fmt: skip
    if level == "namespaces":
        os.chdir(FOLDER)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        limits[resource.RLIMIT_NPROC] = 128  # its threads; elsewhere all of the user's processes would count
        if lent:
            os.setgroups([])
            os.setresgid(1, 1, 1)
            os.setresuid(1, 1, 1)
    else:
        os.chdir("/")
    for name, most in limits.items():
        _, hard = resource.getrlimit(name)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS knows no limit of address space
            resource.setrlimit(name, (bound, bound))
    if level == "landlock":
        kernel.landlock(view.paths)
    if kernel.LINUX:
        kernel.drop_capabilities()  # root could raise its limits again
    if calls.supported():
        calls.install()
