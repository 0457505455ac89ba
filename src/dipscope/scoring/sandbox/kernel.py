"""The system calls that Python 3.11 does not offer, by ctypes."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path

LINUX = sys.platform == "linux" and sys.maxsize > 2**32
NEW_MOUNT, NEW_NAMES, NEW_IPC, NEW_USER, NEW_PID, NEW_NETWORK = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
READ_ONLY, NO_SETUID, NO_DEVICES, NO_EXECUTE, REMOUNT, NO_TIMES, NO_FOLDER_TIMES, BIND, RECURSIVE, PRIVATE = (
    1, 2, 4, 8, 32, 1024, 2048, 4096, 16384, 1 << 18,
)  # fmt: skip
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
# Landlock, the same numbers on every machine (linux/landlock.h).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_WRITE_FILE, _READ_FILE, _READ_DIRECTORY = 1 << 1, 1 << 2, 1 << 3
_ALL_OF_ABI_3 = (1 << 15) - 1  # the first version that also controls truncation


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    long = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return int(_libc().syscall(ctypes.c_long(number), *long))


def prctl(option: int, value: int, more: int = 0) -> None:
    """Set a property of the calling process; raises OSError."""
    zero = ctypes.c_ulong(0)
    arguments = (ctypes.c_ulong(value), ctypes.c_ulong(more), zero, zero)
    _checked(_libc().prctl(option, *arguments), "prctl")


def unshare(flags: int) -> None:
    """Leave the named namespaces for new ones; raises OSError."""
    _checked(_libc().unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Mount, remount or bind; raises OSError."""
    encoded = [os.fsencode(p) for p in (source, target)]
    name = kind.encode() if kind else None
    _checked(_libc().mount(*encoded, name, ctypes.c_ulong(flags), data.encode() or None), f"mount {target}")


def unmount(target: str) -> None:
    """Take a mount out of sight at once, whoever uses it; raises OSError."""
    _checked(_libc().umount2(os.fsencode(target), 2), f"umount {target}")


def pivot_root(root: str) -> None:
    """Make a mounted folder the root and let go of the old one; raises OSError."""
    os.chdir(root)
    _checked(_syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    unmount(".")
    os.chdir("/")


def no_new_privileges() -> None:
    """Nothing that this process executes may have more rights than itself."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Give up every capability, for good; raises OSError."""
    for number in range(64):
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError:  # the kernel knows fewer, or there are none to drop
            break
    header = ctypes.create_string_buffer(b"\x22\x05\x08\x20" + bytes(4))  # _LINUX_CAPABILITY_VERSION_3
    _checked(_libc().capset(header, ctypes.create_string_buffer(24)), "capset")


def landlock(readable: Iterable[Path]) -> None:
    """Refuse the calling process all files but those that are named, and writing them, for good.

    Args:
        readable: files, and folders with all below them. The null device, where named, can be written too.

    Raises:
        OSError: the kernel refuses.
    """
    handled = ctypes.create_string_buffer(_ALL_OF_ABI_3.to_bytes(8, "little"), 8)
    rules = _checked(_syscall(_CREATE_RULESET, handled, 8, 0), "landlock")
    try:
        for path in readable:
            _allow(rules, path)
        no_new_privileges()
        _checked(_syscall(_RESTRICT_SELF, rules, 0), "landlock")
    finally:
        os.close(rules)


def _allow(rules: int, path: Path) -> None:
    access = _READ_FILE | (_READ_DIRECTORY if path.is_dir() else 0)
    if path == Path(os.devnull):
        access |= _WRITE_FILE
    file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        beneath = access.to_bytes(8, "little") + file.to_bytes(4, "little")
        _checked(_syscall(_ADD_RULE, rules, 1, ctypes.create_string_buffer(beneath, 12), 0), str(path))
    finally:
        os.close(file)
