"""A foreign program within limits: time, memory, processor time, no network, nothing of ours in its environment.

Linux does the confining: namespaces (util-linux's ``unshare``) for the network and so that nothing outlives the
program, resource limits (``prlimit``), and a look at the memory of the whole tree of processes. What was had is told.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from overread.domain.errors import CardError
from overread.domain.pipeline import External
from overread.infer.discreet import discreet
from overread.infer.family import descendants

MB = 1 << 20
TAIL = 4096
# The first process of a process namespace is deaf to most signals, so that it must not be the program itself.
FIRST = ("/bin/sh", "-c", '"$@"; exit $?', "sh")


class ProgramFailed(RuntimeError):
    """The program ended badly or was ended; the text says how, without patient data."""


class Confined:
    """A command that can be run within the limits of ``external``; raises CardError when a limit cannot be had.

    ``notes`` say which limits are in force, in words for the log.
    """

    def __init__(self, external: External, command: Sequence[str], device: str) -> None:
        self._external, self._command = external, tuple(command)
        self._visible = "" if device == "cpu" else device.removeprefix("cuda:")
        namespaces, said = _namespaces(external.network)
        limits = _limits(external)
        self._prefix = (*_leash(), *namespaces, *limits)
        memory = f"memory up to {external.memory_mb} MB" if external.memory_mb else "memory unlimited"
        self.notes: tuple[str, ...] = (said, memory)

    def run(self, places: Mapping[str, Path], patience_s: float, tick: Callable[[], None]) -> None:
        """Run it; ``places``: the folders of its placeholders. ``tick`` is called while it runs.

        Raises ProgramFailed when it takes longer than ``patience_s``, more memory than it may, or ends with a failure.
        """
        words = [_filled(word, places) for word in self._command]
        said = places["home"] / ".said"
        with said.open("wb") as log:
            process = subprocess.Popen(
                [*self._prefix, *words],
                cwd=places["output"],
                env=self._environment(places),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                reason = self._watch(process, patience_s, tick)
            finally:
                _end(process)
        tail = _tail(said, places["input"])
        if reason:
            raise ProgramFailed(f"{reason}{tail}")

    def _watch(self, process: subprocess.Popen[bytes], patience_s: float, tick: Callable[[], None]) -> str:
        """Why it failed, or nothing."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                code = process.wait(0.1)
            except subprocess.TimeoutExpired:
                tick()
                used = _tree_mb(process.pid) if self._external.memory_mb else 0.0
                if used > self._external.memory_mb:
                    return f"the program took more than its {self._external.memory_mb} MB of memory and was ended"
                if time.monotonic() > deadline:
                    return f"the program did not end within {patience_s:g} s and was ended"
                continue
            return _ended(code)

    def _environment(self, places: Mapping[str, Path]) -> dict[str, str]:
        home = str(places["home"])
        own = {"HOME": home, "TMPDIR": home, "LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"}
        own["CUDA_VISIBLE_DEVICES"] = self._visible
        # What mercure modules look for.
        own |= {"MERCURE_IN_DIR": str(places["input"]), "MERCURE_OUT_DIR": str(places["output"])}
        return {**own, **{k: _filled(v, places) for k, v in self._external.environment.items()}}


def _ended(code: int) -> str:
    """Why a program that ended by itself failed, or nothing; a shell says signals as 128 and their number."""
    number = -code if code < 0 else code - 128
    if number <= 0:
        return f"the program ended with exit code {code}" if code else ""
    names = {s.value: s.name for s in signal.Signals}
    hint = " (the system may have run out of memory)" if number == signal.SIGKILL else ""
    return f"the program was ended by {names.get(number, f'signal {number}')}{hint}"


def _leash() -> tuple[str, ...]:
    """Ends the program when the worker is ended, which may be at any time and without a word."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()


def _namespaces(network: bool) -> tuple[tuple[str, ...], str]:
    unshare = shutil.which("unshare")
    user = () if os.geteuid() == 0 else ("--user", "--map-current-user")
    tree = ("--pid", "--fork", "--kill-child")
    wanted = (*user, *tree) if network else (*user, "--net", *tree)
    works = unshare is not None and _works((unshare, *wanted))
    if works and unshare is not None:
        said = "with the machine's network" if network else "without network (a network namespace of its own)"
        return (unshare, *wanted, "--", *FIRST), said
    if network:
        return (), "with the machine's network; what it leaves behind is ended by its process group only"
    raise CardError(
        "the card says network = false, and this system lets overread make no network namespace (util-linux's unshare, "
        "user namespaces); allow that, or say network = true under [external]"
    )


def _works(command: Sequence[str]) -> bool:
    try:
        tried = subprocess.run([*command, "--", "true"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


def _limits(external: External) -> tuple[str, ...]:
    wanted = ["--core=0:0"]
    if external.memory_mb:
        wanted.append(f"--data={external.memory_mb * MB}:{external.memory_mb * MB}")
    if external.cpu_s:
        wanted.append(f"--cpu={external.cpu_s}:{external.cpu_s + 5}")
    prlimit = shutil.which("prlimit")
    if prlimit is None:
        if len(wanted) > 1:
            raise CardError("the limits memory_mb and cpu_s need util-linux's prlimit, which is not installed")
        return ()
    return (prlimit, *wanted, "--")


def _filled(word: str, places: Mapping[str, Path]) -> str:
    for name in ("input", "nifti", "output", "model"):
        word = word.replace(f"{{{name}}}", str(places[name]))
    return word


def _end(process: subprocess.Popen[bytes]) -> None:
    """The program and all that it has started: the namespace's first process takes the others with it."""
    for child in descendants(process.pid):
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def _tree_mb(root: int) -> float:
    pages = 0
    for pid in [root, *descendants(root)]:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it has just ended
    return pages * os.sysconf("SC_PAGE_SIZE") / MB


def _tail(said: Path, sources: Path) -> str:
    """The last that the program said, on one line and without what may name the patient."""
    with said.open("rb") as log:
        log.seek(max(0, said.stat().st_size - TAIL))
        text = discreet(log.read().decode("utf-8", "replace"), sorted(sources.rglob("*.dcm")))
    return f"; it said last: {text[-160:]}" if text else ""
