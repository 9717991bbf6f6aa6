"""What a model's process may still do: read its own files, write in a folder of its own, and reach no network.

It is entered before anything of the model, torch or NumPy is imported, while there is one thread. Each wall stands by
itself: where a system does not let one be had, the others stand, and what is lacking is told.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from overread.infer import landlock, seccomp

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
CAP_DAC_READ_SEARCH = 2  # a service that runs as root must read models that are not root's; Landlock says which files
PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24
SIGKILL = 9
CAPABILITIES_3 = 0x20080522
# What Python, torch, CUDA and the C library read; never settings, the spool, the ledger, keys or homes.
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/proc", "/sys", "/run/nvidia-persistenced")
OF_ETC = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone", "passwd", "group", "nsswitch.conf"),
    *("alternatives", "OpenCL", "nvidia", "mime.types", "os-release", "machine-id"),
)
# Nothing else of /dev: no disks, and no shared memory, where a model could look for what is others' and leave its own.
DEVICES = ("null", "zero", "full", "random", "urandom")
ACCELERATORS = ("nvidia", "dri", "kfd", "accel")  # as their names begin
NETWORK = "the network"


@dataclass(frozen=True)
class Cage:
    """``scratch`` is the folder in which it may write, ``readable`` what it reads beside Python and the system.
    ``data_bytes`` limits its data (0: not); ``confine`` is available, required or off (``schedule.confine``)."""

    scratch: str
    readable: tuple[str, ...] = ()
    data_bytes: int = 0
    confine: str = "available"


@dataclass(frozen=True)
class Walls:
    """Which walls stand, and which do not and why; ``open``: the network can be reached."""

    had: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    open: bool = True


def enter(cage: Cage, keeper: int) -> Walls:
    """Build the walls around this process; it dies with ``keeper``, its parent. Never raises."""
    os.environ.update(HOME=cage.scratch, TMPDIR=cage.scratch, XDG_CACHE_HOME=cage.scratch)
    _limit(cage)
    had: list[str] = []
    lacking: list[str] = []

    def build(name: str, wall: Callable[[], object]) -> bool:
        try:
            wall()
        except OSError as error:
            lacking.append(f"{name} ({error.strerror or error})")
            return False
        had.append(name)
        return True

    confined = cage.confine != "off"
    away = confined and build("a network namespace of its own", _own_network)
    if confined:
        build("no capabilities", _no_capabilities)
        build("no new privileges, no sockets", seccomp.restrict)
        build("its own files only", lambda: landlock.restrict(_readable(cage), _writable(cage)))
    _die_with(keeper)
    closed = away or "no new privileges, no sockets" in had
    return Walls(tuple(had), tuple(lacking), not closed)


def _readable(cage: Cage) -> tuple[str, ...]:
    # `python -m` puts the current folder in front, which may be the data folder, or the root.
    ours = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
    modules = (path for path in sys.path if path not in ("", "/", os.getcwd()))  # noqa: PTH109
    python = (sys.prefix, sys.base_prefix, sys.exec_prefix, ours, *modules)
    etc = tuple(f"/etc/{name}" for name in OF_ETC)
    return (*SYSTEM, *etc, *python, *cage.readable)


def _writable(cage: Cage) -> tuple[str, ...]:
    found = os.listdir("/dev")  # noqa: PTH208  # pathlib is not imported this early
    devices = (f"/dev/{name}" for name in found if name in DEVICES or name.startswith(ACCELERATORS))
    return (cage.scratch, "/proc/self", *devices)


def _limit(cage: Cage) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if cage.data_bytes:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = cage.data_bytes if hard == resource.RLIM_INFINITY else min(cage.data_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    with suppress(OSError):  # of all processes of the service the system is to choose this one when memory is short
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        with os.fdopen(descriptor, "w") as score:
            score.write("500")


def _own_network() -> None:
    flags = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWNET | CLONE_NEWUSER
    user, group = os.geteuid(), os.getegid()
    _check(_libc().unshare(flags))
    if flags & CLONE_NEWUSER:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
            with os.fdopen(descriptor, "w") as table:
                table.write(text)


def _no_capabilities() -> None:
    libc = _libc()
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_3, 0)
    now = (ctypes.c_uint32 * 6)()
    _check(libc.capget(header, now))
    if not any(now):
        return  # a service manager has dropped them all, and may not let this be asked for again
    for number in range(64):
        if number != CAP_DAC_READ_SEARCH and libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0):
            break  # beyond the last one there is, or not ours to drop: then there is nothing to regain either
    kept = now[1] & (1 << CAP_DAC_READ_SEARCH)
    _check(libc.capset(header, (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)))


def _die_with(keeper: int) -> None:
    # The keeper starts workers from a thread that lives as long as it does: the signal comes with that thread's end.
    if sys.platform == "linux":
        _libc().prctl(PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(answer: int) -> None:
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
