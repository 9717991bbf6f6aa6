"""A seccomp filter: no line to other processes, none of the calls that a model never needs, and no file changed but in
what it holds (seccomp(2)).

A pair of sockets within the process, and one that waits for others, can be made: CUDA and asyncio do. Modes, owners,
times and attributes of files stay as they are, though the call says that it was done: Landlock does not rule them, and
what copies a file within the model's own folder sets them, and must not fail.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SECCOMP = {"x86_64": 317, "aarch64": 277}
SOCKETS = {"x86_64": (41, 53), "aarch64": (198, 199)}  # socket, socketpair
# connect, ptrace, mount, umount2, pivot_root, chroot, reboot, swapon, kexec_load, init_module, finit_module,
# delete_module, bpf, perf_event_open, keyctl, add_key, request_key, process_vm_readv, process_vm_writev, userfaultfd,
# setns, unshare, open_by_handle_at, io_uring_setup (which opens sockets past any filter), shmget, msgget, semget (which
# outlive it)
DENIED = {
    "x86_64": (
        *(42, 101, 165, 166, 155, 161, 169, 167, 246, 175, 313, 176, 321),
        *(298, 250, 248, 249, 310, 311, 323, 308, 272, 304, 425, 29, 68, 64),
    ),
    "aarch64": (
        *(203, 117, 40, 39, 41, 51, 142, 224, 104, 105, 273, 106, 280),
        *(241, 219, 217, 218, 270, 271, 282, 268, 97, 265, 425, 194, 186, 190),
    ),
}
# fchmod, fchmodat, fchmodat2, fchown, fchownat, utimensat, setxattr, lsetxattr, fsetxattr, setxattrat, removexattr,
# lremovexattr, fremovexattr, removexattrat, file_setattr; and on x86_64 chmod, chown, lchown, utime, utimes, futimesat
PRETENDED = {
    "x86_64": (
        *(91, 268, 452, 93, 260, 280, 188, 189, 190, 463, 197, 198, 199, 466, 469),
        *(90, 92, 94, 132, 235, 261),
    ),
    "aarch64": (52, 53, 452, 55, 54, 88, 5, 6, 7, 463, 14, 15, 16, 466, 469),
}
X32 = 0x40000000
AF_UNIX, SOCK_STREAM, SOCK_SEQPACKET, KINDS = 1, 1, 5, 0xF
LOAD, AND = 0x20, 0x54  # BPF_LD|W|ABS, BPF_ALU|AND|K
EQUAL, AT_LEAST, RETURN = 0x15, 0x35, 0x06  # BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
ALLOW, FAIL = 0x7FFF0000, 0x00050000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT, SECOND_ARGUMENT = 0, 4, 16, 24  # offsets in struct seccomp_data
PR_SET_NO_NEW_PRIVS = 38
Step = tuple[int, int, int, int]  # what to do, how many steps to leave out if so, and if not, with which value


def restrict() -> None:
    """From now on, in every thread, no other process can be reached. Raises OSError where that cannot be had."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no seccomp filter is written for {machine}")
    program = b"".join(struct.pack("HBBI", *step) for step in (*_native(machine), *_sockets(machine), *_calls(machine)))
    libc = ctypes.CDLL(None, use_errno=True)
    held = ctypes.create_string_buffer(program)
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held)))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(ctypes.c_long(SECCOMP[machine]), 1, 1, header):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _native(machine: str) -> list[Step]:
    """No calls in another architecture's numbers."""
    steps = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, ARCHITECTURES[machine]),
        (RETURN, 0, 0, FAIL | errno.EPERM),
        (LOAD, 0, 0, NUMBER),
    ]
    if machine == "x86_64":
        steps += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, FAIL | errno.EPERM)]
    return steps


def _sockets(machine: str) -> list[Step]:
    """Local ones of the kinds that reach nobody without connect: to a datagram an address can be given."""
    one, pair = SOCKETS[machine]
    return [
        (EQUAL, 1, 0, one),
        (EQUAL, 0, 8, pair),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (EQUAL, 0, 4, AF_UNIX),
        (LOAD, 0, 0, SECOND_ARGUMENT),
        (AND, 0, 0, KINDS),
        (EQUAL, 2, 0, SOCK_STREAM),
        (EQUAL, 1, 0, SOCK_SEQPACKET),
        (RETURN, 0, 0, FAIL | errno.EACCES),
        (RETURN, 0, 0, ALLOW),
    ]


def _calls(machine: str) -> list[Step]:
    denied, pretended = DENIED[machine], PRETENDED[machine]
    left = len(denied) + len(pretended)
    steps = [(EQUAL, left - n, 0, number) for n, number in enumerate(denied)]
    steps += [(EQUAL, len(pretended) - n + 1, 0, number) for n, number in enumerate(pretended)]
    return [*steps, (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, FAIL | errno.EPERM), (RETURN, 0, 0, FAIL)]
