"""What a process gives up before it opens a file that a stranger wrote; on Linux, by the kernel's own means.

In this order, each stricter than the one before: limits on memory, processor time, file size and open files; Landlock
(nothing can be written anywhere, nothing read but the one file and the program's own libraries, no TCP, no signal to
another process); a seccomp filter (no socket of any family, no new process, no other program). Landlock and seccomp
need no privilege and cannot be undone. Where a kernel lacks one of them the others still hold, and
:func:`confine` says which are in force.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
_MEMORY_FLOOR = 400 * MIB  # the interpreter with Arrow and pandas is about 160 MiB of it
_MEMORY_PER_BYTE = 40  # measured: up to 30 for a packed workbook, 8 for text
_MEMORY_CEILING = 4096 * MIB
_SECONDS_FLOOR = 8.0
_SECONDS_PER_MIB = 2.0

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000  # the x32 numbering would go round the list below

# (audit architecture, clone, what a reader never needs) by machine, in the same order for both.
_DENIED_X86_64 = (
    *(41, 42, 49, 53),  # socket, connect, bind, socketpair
    *(59, 322, 57, 58),  # execve, execveat, fork, vfork
    *(62, 200, 129, 424, 434),  # kill, tkill, rt_sigqueueinfo, pidfd_send_signal, pidfd_open
    *(101, 310, 311, 298, 321, 323),  # ptrace, process_vm_*, perf_event_open, bpf, userfaultfd
    *(109, 112, 160, 165, 272, 308),  # setpgid, setsid, setrlimit, mount, unshare, setns
    *(248, 249, 250, 29, 319, 425),  # add_key, request_key, keyctl, shmget, memfd_create, io_uring_setup
)
_DENIED_AARCH64 = (
    *(198, 203, 200, 199),
    *(221, 281),
    *(129, 130, 138, 424, 434),
    *(117, 270, 271, 241, 280, 282),
    *(154, 157, 164, 40, 97, 268),
    *(217, 218, 219, 194, 279, 425),
)
_SYSCALLS = {"x86_64": (0xC000003E, 56, _DENIED_X86_64), "aarch64": (0xC00000B7, 220, _DENIED_AARCH64)}
_CLONE3 = 435

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo")


@dataclass(frozen=True)
class Limits:
    """What one reading may cost: seconds (of the clock and of one processor), memory and size of the answer."""

    seconds: float = _SECONDS_FLOOR
    memory_bytes: int = _MEMORY_FLOOR
    answer_bytes: int = 2048 * MIB
    open_files: int = 64


def limits_for(size: int) -> Limits:
    """Return the limits for a file of that many bytes: a small file gets little room, so a bomb cannot hide in one."""
    memory = min(_MEMORY_FLOOR + _MEMORY_PER_BYTE * size, _MEMORY_CEILING)
    return Limits(seconds=_SECONDS_FLOOR + _SECONDS_PER_MIB * size / MIB, memory_bytes=memory)


def confine(path: Path, limits: Limits) -> tuple[str, ...]:
    """Confine this process for good to reading that file; return the names of what is in force.

    To be called in a process with one thread. Nothing is raised where the kernel lacks Landlock or seccomp.
    """
    _set_limits(limits)
    in_force = ["limits"]
    if sys.platform != "linux":
        return tuple(in_force)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return tuple(in_force)
    if _landlock(libc, path):
        in_force.append("landlock")
    if _seccomp(libc):
        in_force.append("seccomp")
    return tuple(in_force)


def die_with_parent(signal_number: int) -> None:
    """Let the kernel send this signal when the parent ends; for a parent with one thread. Linux only, else nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def _set_limits(limits: Limits) -> None:
    seconds = math.ceil(limits.seconds)
    # One second more as the hard limit: the soft one's signal says that it was the time.
    wanted = {
        resource.RLIMIT_CPU: (seconds, seconds + 1),
        resource.RLIMIT_FSIZE: (limits.answer_bytes, limits.answer_bytes),
        resource.RLIMIT_NOFILE: (limits.open_files, limits.open_files),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_DATA: (limits.memory_bytes, limits.memory_bytes),
        # Private memory is what RLIMIT_DATA counts; shared mappings are held by this one, above what is mapped already.
        resource.RLIMIT_AS: (_mapped() + limits.memory_bytes, _mapped() + limits.memory_bytes),
    }
    for which, (soft, hard) in wanted.items():
        _, allowed = resource.getrlimit(which)
        if allowed != resource.RLIM_INFINITY:
            soft, hard = min(soft, allowed), min(hard, allowed)
        resource.setrlimit(which, (soft, hard))


def _mapped() -> int:
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else MIB << 10


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction))]


def _seccomp(libc: ctypes.CDLL) -> bool:
    known = _SYSCALLS.get(platform.machine())
    if known is None:
        return False
    body = list(_filter(*known))
    program = _Program(len(body), (_Instruction * len(body))(*(_Instruction(*step) for step in body)))
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def _filter(architecture: int, clone: int, denied: tuple[int, ...]) -> Iterator[tuple[int, int, int, int]]:
    """Yield (code, jump if true, jump if false, operand); threads may be made, processes may not."""
    yield (_LOAD, 0, 0, 4)
    yield (_EQUAL, 1, 0, architecture)
    yield (_RETURN, 0, 0, _KILL)
    yield (_LOAD, 0, 0, 0)
    yield (_AT_LEAST, 0, 1, _X32)
    yield (_RETURN, 0, 0, _FAIL | _EPERM)
    for number in denied:
        yield (_EQUAL, 0, 1, number)
        yield (_RETURN, 0, 0, _FAIL | _EPERM)
    # The flags of clone3 are out of a filter's sight; without it the C library falls back to clone.
    yield (_EQUAL, 0, 1, _CLONE3)
    yield (_RETURN, 0, 0, _FAIL | _ENOSYS)
    yield (_EQUAL, 0, 3, clone)
    yield (_LOAD, 0, 0, 16)
    yield (_ANY_BIT, 1, 0, _CLONE_THREAD)
    yield (_RETURN, 0, 0, _FAIL | _EPERM)
    yield (_RETURN, 0, 0, _ALLOW)


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def _landlock(libc: ctypes.CDLL, path: Path) -> bool:
    if platform.machine() not in _SYSCALLS:
        return False
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    rights = 13 + (version >= 2) + (version >= 3) + (version >= 5)
    rules = _Ruleset((1 << rights) - 1, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 * (1 + (version >= 4) + (version >= 6))
    ruleset = libc.syscall(_LANDLOCK_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    try:
        for place, allowed in _readable(path):
            _allow(libc, ruleset, place, allowed)
        return bool(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _readable(path: Path) -> Iterator[tuple[str, int]]:
    """Yield what stays readable: the file, and where Python loads modules and libraries from."""
    yield str(path), _READ_FILE
    package = str(Path(__file__).resolve().parents[1])
    packages = [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]
    for place in dict.fromkeys((sys.prefix, sys.base_prefix, package, *packages, *_LIBRARIES)):
        yield place, _READ_FILE | _READ_DIR


def _allow(libc: ctypes.CDLL, ruleset: int, place: str, allowed: int) -> None:
    try:
        parent = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no permission
    try:
        rule = _Beneath(allowed, parent)
        libc.syscall(_LANDLOCK_ADD, ruleset, 1, ctypes.byref(rule), 0)
    finally:
        os.close(parent)
