"""A model that does what the brightest voxel of its input says: one way to die for each number, and one to be well.

It is an engine from another distribution, written into a folder of its own, so that its processes start without torch.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
from house import Study
from pydicom import dcmread

from overread.simulate.phantom import ChestPhantom, Grid, chest_phantom
from overread.simulate.study import write_study

FIRST = 3000  # no phantom is as bright
DEEDS = (
    *("well", "segfault", "exit", "abort", "hang", "hog", "swell", "raise", "shape", "nan", "device", "dial", "write"),
    *("chatter", "slow", "spawn", "busy", "garbage", "half", "torrent", "smuggle", "forge", "orphan", "litter", "hide"),
    *("swarm", "name", "grow", "scribble", "meddle"),
)
WINDOW_S = 0.25
MB = 1 << 20

ENGINE = '''
"""What each number does."""

import ctypes
import json
import mmap
import os
import pickle
import socket
import struct
import subprocess
import time

import numpy as np

from overread.domain.reading import Reading

DEEDS = {deeds!r}


class Mischief:
    def __init__(self, card, device):
        self.card = card
        time.sleep(float(os.environ.get("MISCHIEF_LOADS_S", "0")))

    def read(self, volumes, progress):
        voxels = volumes[0].voxels
        number = int(voxels.max()) - {first}
        deed = DEEDS[number] if 0 <= number < len(DEEDS) else "well"
        found = (voxels > 200).astype(np.uint8)
        notes = getattr(self, deed)(found, progress) or ()
        if isinstance(notes, Reading):
            return notes
        progress(1.0)
        return Reading(label_map=found, notes=tuple(notes))

    def well(self, found, progress):
        for n in range(3):
            time.sleep(0.02)
            progress(n / 3)

    def busy(self, found, progress):
        for n in range(10):
            time.sleep(0.05)
            progress(n / 10)

    def segfault(self, found, progress):
        print("about to follow a null pointer")
        ctypes.string_at(0)

    def exit(self, found, progress):
        os._exit(7)

    def abort(self, found, progress):
        os.abort()

    def hang(self, found, progress):
        ctypes.PyDLL(None).sleep(600)  # with the GIL held: no thread of this process runs any more

    def hog(self, found, progress):
        held = []
        while True:
            held.append(np.ones(1 << 24, np.uint8))
            time.sleep(0.005)

    def swell(self, found, progress):
        while True:  # shared memory counts for no RLIMIT
            mine = mmap.mmap(-1, 1 << 25)
            mine.write(b"x" * (1 << 25))
            self.kept = getattr(self, "kept", []) + [mine]
            time.sleep(0.05)

    def raise_(self, found, progress):
        raise ValueError("a model's own fault")

    def shape(self, found, progress):
        return Reading(label_map=found[:, 1:])

    def nan(self, found, progress):
        return Reading(label_map=found, probabilities={{1: np.full(found.shape, np.nan, np.float16)}})

    def device(self, found, progress):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def dial(self, found, progress):
        said = []
        for family, address in ((socket.AF_INET, ("127.0.0.1", int(os.environ["MISCHIEF_PORT"]))),
                                (socket.AF_UNIX, "\\0overread-test")):
            try:
                with socket.socket(family) as line:
                    line.settimeout(2)
                    line.connect(address)
                said.append("reached")
            except OSError as error:
                said.append(type(error).__name__)
        return said

    def write(self, found, progress):
        said = []
        for path in (os.environ["MISCHIEF_TARGET"], str(self.card.folder / "evil"), os.environ["HOME"] + "/mine"):
            try:
                with open(path, "w") as file:
                    file.write("x")
                said.append("written")
            except OSError as error:
                said.append(type(error).__name__)
        try:
            open(os.environ["MISCHIEF_TARGET"] + ".secret").read()
            said.append("read")
        except OSError as error:
            said.append(type(error).__name__)
        return said

    def chatter(self, found, progress):
        print("reading", os.environ["MISCHIEF_SAYS"], "1.2.840.113619.2.55.3.604688119, 123456789", flush=True)
        os.abort()

    def slow(self, found, progress):
        for n in range(int(os.environ.get("MISCHIEF_WINDOWS", "40"))):
            time.sleep({window})
            progress(n / 40)

    def spawn(self, found, progress):
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        print("child", hex(child.pid), flush=True)
        time.sleep(600)

    def garbage(self, found, progress):
        for number in range(3, 64):
            try:
                os.write(number, b"garbage" * 100)
            except OSError:
                pass
        time.sleep(600)

    def half(self, found, progress):
        for number in channels():
            os.write(number, struct.pack(">I", 100000) + b"x" * 10)
        time.sleep(600)

    def torrent(self, found, progress):
        text = json.dumps({{"message": "Progressed", "fraction": 0.5}}).encode()
        while True:
            for number in channels():
                os.write(number, struct.pack(">I", len(text)) + text)

    def smuggle(self, found, progress):
        class Code:
            def __reduce__(self):
                return os.system, ("touch " + os.environ["MISCHIEF_TARGET"],)

        said = pickle.dumps(Code())
        for number in channels():
            os.write(number, struct.pack(">i", len(said)) + said)
        time.sleep(600)

    def forge(self, found, progress):
        """An answer of a few lines that speaks of many gigabytes."""
        array = {{"role": "mask", "dtype": "bool", "shape": list(found.shape), "offset": 0}}
        arrays = [{{**array, "value": n}} for n in range(1, 9000)]
        parcel = {{"arrays": arrays, "boxes": [], "classes": [], "notes": []}}
        said = {{"message": "Done", "parcel": parcel, "seconds": 1.0, "device_peak_bytes": 0}}
        text = json.dumps(said).encode()
        for number in channels():
            os.write(number, struct.pack(">I", len(text)) + text)
        time.sleep(600)

    def orphan(self, found, progress):
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        print("child", hex(child.pid), flush=True)
        os._exit(5)

    def litter(self, found, progress):
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        open(os.environ["HOME"] + "/child", "w").write(str(child.pid))
        self.slow(found, progress)

    def swarm(self, found, progress):
        for _ in range(8):
            if os.fork() == 0:
                held = np.ones(100 << 20, np.uint8)
                time.sleep(600)
                os._exit(len(held) > 0)
        time.sleep(600)

    def grow(self, found, progress):
        held = []
        for n in range(30):
            if n < 10:
                held.append(np.ones(30 << 20, np.uint8))
            time.sleep(0.1)
            progress(n / 30)

    def hide(self, found, progress):
        said = []
        for path in (os.environ["MISCHIEF_TARGET"], "/dev/shm/mischief-new"):
            try:
                with open(path, "r+b" if os.path.exists(path) else "wb") as file:
                    file.write(b"x" * 64)
                said.append("written")
            except OSError as error:
                said.append(type(error).__name__)
        try:
            said.append(" ".join(os.listdir("/dev/shm")))
        except OSError as error:
            said.append(type(error).__name__)
        return said

    def scribble(self, found, progress):
        os.mkdir(os.environ["HOME"] + "/below")
        with open(os.environ["HOME"] + "/below/log", "wb") as file:
            while True:
                file.write(bytes(1 << 20))
                time.sleep(0.005)

    def meddle(self, found, progress):
        """With what is others' by other ways than by opening it."""
        target = os.environ["MISCHIEF_TARGET"]
        said = []
        for deed in (lambda: socket.socket(socket.AF_UNIX).connect(target + ".line"),
                     lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", target + ".box"),
                     lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", target + ".box")):
            try:
                deed()
                said.append("reached")
            except OSError as error:
                said.append(type(error).__name__)
        os.chmod(target, 0o777)
        os.utime(target, (0, 0))
        return said

    def name(self, found, progress):
        print("a look at", os.environ["MISCHIEF_SAYS"], flush=True)
        raise ValueError("no room: " + os.environ["MISCHIEF_SAYS"] + ", 1.2.840.113619.2.55.3.604688119, 123456789")


def channels():
    """The descriptors by which this process talks."""
    found = []
    for number in range(3, 64):
        try:
            if os.readlink(f"/proc/self/fd/{{number}}").startswith("socket:"):
                found.append(number)
        except OSError:
            pass
    return found


setattr(Mischief, "raise", Mischief.raise_)
'''
CARD = """
name = "{name}"
version = "1.0"
title = "Mischief"
manufacturer = "overread tests"
engine = "mischief"
weights = "weights"
weights_sha256 = "{digest}"
[accepts]
modality = "CT"
min_slices = 3
[runtime]
{runtime}
[[labels]]
value = 1
name = "Bone"
type = ["272673000", "SCT", "Bone"]
"""


def install(folder: Path) -> Path:
    """Write the engine's distribution; returns the folder for PYTHONPATH."""
    about = folder / "mischief-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mischief\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[overread.engines]\nmischief = mischief_engine:Mischief\n")
    text = ENGINE.format(deeds=DEEDS, first=FIRST, window=WINDOW_S)
    (folder / "mischief_engine.py").write_text(text)
    return folder


def model(models: Path, name: str = "mischief", runtime: str = "timeout_s = 20\nattempts = 10") -> Path:
    """A model folder; returns it."""
    folder = models / name
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"none")
    digest = hashlib.sha256(b"none").hexdigest()
    (folder / "card.toml").write_text(CARD.format(name=name, digest=digest, runtime=runtime))
    return folder


@cache
def _phantom() -> ChestPhantom:
    return chest_phantom(3, Grid((5, 20, 20), (20.0, 16.0, 16.0)), nodules=0, healthy=True)


def study(folder: Path, deed: str, salt: str) -> Study:
    """A CT of five slices whose reading does ``deed``."""
    phantom = _phantom()
    phantom.hu[2, 10, 10] = FIRST + DEEDS.index(deed)
    files = write_study(phantom, folder / salt, seed=1, uid_salt=salt)
    return Study(str(dcmread(files[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID), tuple(files))


def silent(_fraction: float) -> None:
    """Nobody is told."""


def voxels(deed: str) -> np.ndarray[tuple[int, int, int], np.dtype[np.int16]]:
    """Six slices whose reading does ``deed``."""
    made = np.zeros((6, 8, 9), np.int16)
    made[1, 2, 3] = FIRST + DEEDS.index(deed)
    return made
