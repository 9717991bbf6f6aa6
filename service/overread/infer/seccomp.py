"""A seccomp filter: no sockets but local ones, and none of the calls that a model never needs (seccomp(2))."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SOCKET = {"x86_64": 41, "aarch64": 198}
SECCOMP = {"x86_64": 317, "aarch64": 277}
# ptrace, mount, umount2, pivot_root, chroot, reboot, swapon, kexec_load, init_module, finit_module, delete_module, bpf,
# perf_event_open, keyctl, add_key, request_key, process_vm_readv, process_vm_writev, userfaultfd, setns, unshare,
# open_by_handle_at, io_uring_setup (which opens sockets past any filter), shmget, msgget, semget (which outlive it)
DENIED = {
    "x86_64": (
        *(101, 165, 166, 155, 161, 169, 167, 246, 175, 313, 176, 321),
        *(298, 250, 248, 249, 310, 311, 323, 308, 272, 304, 425, 29, 68, 64),
    ),
    "aarch64": (
        *(117, 40, 39, 41, 51, 142, 224, 104, 105, 273, 106, 280),
        *(241, 219, 217, 218, 270, 271, 282, 268, 97, 265, 425, 194, 186, 190),
    ),
}
X32 = 0x40000000
AF_UNIX = 1
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
ALLOW, FAIL = 0x7FFF0000, 0x00050000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
PR_SET_NO_NEW_PRIVS = 38


def restrict() -> None:
    """From now on, in every thread, no socket but AF_UNIX can be made. Raises OSError where that cannot be had."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no seccomp filter is written for {machine}")
    program = _program(machine)
    libc = ctypes.CDLL(None, use_errno=True)
    held = ctypes.create_string_buffer(program)
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held)))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(ctypes.c_long(SECCOMP[machine]), 1, 1, header):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _program(machine: str) -> bytes:
    denied = DENIED[machine]
    steps = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, ARCHITECTURES[machine]),
        (RETURN, 0, 0, FAIL | errno.EPERM),
        (LOAD, 0, 0, NUMBER),
    ]
    if machine == "x86_64":
        steps += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, FAIL | errno.EPERM)]
    steps += [(EQUAL, 0, 4, SOCKET[machine]), (LOAD, 0, 0, FIRST_ARGUMENT), (EQUAL, 1, 0, AF_UNIX)]
    steps += [(RETURN, 0, 0, FAIL | errno.EACCES), (RETURN, 0, 0, ALLOW)]
    steps += [(EQUAL, len(denied) - n, 0, number) for n, number in enumerate(denied)]
    steps += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, FAIL | errno.EPERM)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)
