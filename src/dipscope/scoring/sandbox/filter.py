"""Which system calls a program may make (seccomp): a list of what a single process needs to compute.

No process can be started and no program executed, no socket opened, nobody else signalled or traced, nothing
mounted, no attribute of a file changed. Whatever is not listed does not exist for the program (ENOSYS).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from dataclasses import dataclass

from dipscope.scoring.sandbox import kernel

# Instructions of the classic BPF machine and results of a filter (linux/bpf_common.h, linux/seccomp.h).
_LOAD, _EQUAL, _AT_LEAST, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x25, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_ENOSYS, _EPERM = 38, 1
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets into struct seccomp_data, little endian
_ARGUMENT = 8  # bytes of each
_X32 = 0x40000000  # the other table of x86-64
_CLONE_THREAD = 0x00010000


@dataclass(frozen=True)
class _Machine:
    audit: int  # AUDIT_ARCH_* of linux/audit.h
    allowed: tuple[tuple[int, int], ...]  # first and last number of runs of allowed calls
    ioctl: int
    fcntl: int
    socketpair: int
    prctl: int
    clone: int
    kill: int
    tgkill: int
    prlimit: int


# Reading, writing and mapping of files and pipes, memory, threads and their locks, time and timers, signals
# to oneself, waiting for events, pairs of sockets, questions about oneself; names and contents of files where
# the walls allow it. Numbers from the kernel's tables (asm/unistd_64.h, asm-generic/unistd.h).
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        ((0, 28), (32, 40), (44, 48), (51, 51), (53, 53), (55, 55), (60, 61), (63, 63), (72, 89), (95, 100),
         (102, 102), (104, 104), (107, 108), (110, 111), (115, 115), (118, 118), (120, 121), (124, 124),
         (127, 128), (130, 131), (137, 138), (140, 140), (143, 143), (145, 145), (157, 158), (160, 160),
         (186, 187), (201, 202), (204, 204), (213, 213), (217, 219), (221, 226), (228, 233), (247, 247),
         (257, 258), (262, 267), (269, 271), (273, 274), (281, 281), (283, 287), (289, 293), (309, 309),
         (316, 316), (318, 318), (324, 324), (326, 326), (332, 332), (334, 334), (439, 439), (441, 441)),
        ioctl=16, fcntl=72, socketpair=53, prctl=157, clone=56, kill=62, tgkill=234, prlimit=302,
    ),
    "aarch64": _Machine(
        0xC00000B7,
        ((17, 17), (19, 25), (29, 29), (32, 32), (34, 38), (43, 50), (56, 57), (59, 59), (61, 68), (71, 74),
         (78, 80), (82, 83), (85, 87), (93, 96), (98, 103), (107, 111), (113, 115), (120, 121), (123, 124),
         (128, 128), (132, 137), (139, 139), (141, 141), (148, 148), (150, 150), (153, 153), (155, 156),
         (158, 158), (160, 160), (163, 169), (172, 179), (199, 199), (204, 204), (206, 207), (209, 216),
         (222, 223), (226, 227), (232, 233), (260, 260), (276, 276), (278, 278), (283, 283), (285, 285),
         (291, 291), (293, 293), (439, 439), (441, 441)),
        ioctl=29, fcntl=25, socketpair=199, prctl=167, clone=220, kill=129, tgkill=131, prlimit=261,
    ),
}  # fmt: skip


def supported() -> bool:
    """Whether this machine's system calls are known."""
    return kernel.LINUX and platform.machine() in _MACHINES


def install() -> None:
    """Put the filter on the calling process, for good. It holds for the process id that it has now.

    Raises:
        OSError: the kernel refuses.
    """
    code = _program(_MACHINES[platform.machine()], os.getpid())
    lines = ctypes.create_string_buffer(b"".join(code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(lines)))
    kernel.no_new_privileges()
    kernel.prctl(kernel.PR_SET_SECCOMP, 2, ctypes.addressof(program))


def _program(machine: _Machine, own: int) -> list[bytes]:
    def line(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, k)

    refuse = line(_RETURN, _ERRNO | _EPERM)
    allow = line(_RETURN, _ALLOW)
    code = [
        line(_LOAD, _ARCHITECTURE),
        line(_EQUAL, machine.audit, 1, 0),
        line(_RETURN, _KILL),
        line(_LOAD, _NUMBER),
        line(_AT_LEAST, _X32, 0, 1),
        refuse,
    ]
    # Calls of the list that would reach further with one of these arguments (asm-generic/fcntl.h, sockios.h,
    # linux/prctl.h). Whoever owns a file is sent a signal of the program's choice when something arrives
    # there: any process of the same user could be killed so (F_SETOWN, F_SETOWN_EX, FIOSETOWN, SIOCSPGRP).
    # A pair of datagram sockets can send to every other such socket of the machine, and only AF_UNIX (1) is
    # needed. PR_SET_PDEATHSIG would let a program outlive its watcher.
    for number, place, test, value in (
        (machine.fcntl, 1, _EQUAL, 8), (machine.fcntl, 1, _EQUAL, 15),
        (machine.ioctl, 1, _EQUAL, 0x8901), (machine.ioctl, 1, _EQUAL, 0x8902),
        (machine.socketpair, 0, _ANY_BIT, ~1 & 0xFFFFFFFF), (machine.socketpair, 1, _ANY_BIT, 2),
        (machine.prctl, 0, _EQUAL, kernel.PR_SET_PDEATHSIG),
    ):  # fmt: skip
        code += [
            line(_EQUAL, number, 0, 4),
            line(_LOAD, _FIRST_ARGUMENT + _ARGUMENT * place), line(test, value, 0, 1), refuse,
            line(_LOAD, _NUMBER),
        ]  # fmt: skip
    for low, high in machine.allowed:
        code += [line(_AT_LEAST, low, 0, 2), line(_ABOVE, high, 1, 0), allow]
    # A new thread shares all with its process; anything else that clone makes is a process.
    code += [
        line(_EQUAL, machine.clone, 0, 4),
        line(_LOAD, _FIRST_ARGUMENT), line(_ANY_BIT, _CLONE_THREAD, 0, 1), allow, refuse,
    ]  # fmt: skip
    for number, argument in ((machine.kill, own), (machine.tgkill, own), (machine.prlimit, 0)):
        code += [
            line(_EQUAL, number, 0, 4),
            line(_LOAD, _FIRST_ARGUMENT), line(_EQUAL, argument, 0, 1), allow, refuse,
        ]  # fmt: skip
    return [*code, line(_RETURN, _ERRNO | _ENOSYS)]
