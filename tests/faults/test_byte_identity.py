"""Whatever the encoding and however it is cut up on its way: the spool holds the very bytes that were sent."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from house import Service, free_ports, wait_for
from material import make, meta_value, new_uid, split_file, stored_files, tool
from pydicom.errors import InvalidDicomError
from wire import CT, EXPLICIT, Context, Plain, Scattered, Together, Wire, associated

Make = Callable[..., Service]

# What is rightly refused. These do not say which instance of which series and study they are,
NO_INSTANCE = (
    "chrSQEncoding.dcm",
    "chrSQEncoding1.dcm",
    "HTJ2KLossless_08_RGB.dcm",
    "HTJ2K_08_RGB.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jls_lossy_sample.dcm",
    "UN_sequence.dcm",
    "empty_charset_LEI.dcm",
    "nested_priv_SQ.dcm",
    "priv_SQ.dcm",
    "DICOMDIR-empty.dcm",
)
# and this one is not encoded as its file meta information says.
OTHER_SYNTAX = ("SC_rgb_jpeg.dcm",)
REFUSED = dict.fromkeys((*NO_INSTANCE, *OTHER_SYNTAX), 0xC000)
# Taken as they are or refused, both are right; but never changed.
CUT_SHORT = {"MR_truncated.dcm", "rtplan_truncated.dcm", "emri_small_jpeg_2k_lossless_too_short.dcm"}
SHAPES: dict[str, Callable[[], Plain]] = {
    "as common senders do": Plain,
    "command and data set in one PDU": Together,
    "several PDVs in a PDU": lambda: Together(fragment=999),
    "at random": lambda: Scattered(rng=random.Random(7)),
}


@dataclass(frozen=True)
class Sample:
    """A DICOM file of somebody else's, as it has to be sent."""

    path: Path
    uid: str
    context: Context
    data: bytes


def sample(path: Path) -> Sample | None:
    """A Part 10 file with a group length, else None: it does not say where its data set begins."""
    try:
        meta, data = split_file(path)
        with warnings.catch_warnings(action="ignore"):
            header = pydicom.dcmread(path, specific_tags=["SOPInstanceUID", "SOPClassUID"], stop_before_pixels=True)
    except (AssertionError, InvalidDicomError):
        return None
    if meta[132:136] != b"\x02\0\0\0" or "TransferSyntaxUID" not in header.file_meta:
        return None
    named = header.get("SOPClassUID") or CT, str(header.file_meta.TransferSyntaxUID)
    return Sample(path, str(header.get("SOPInstanceUID") or "1.2.3"), (str(named[0]), named[1]), data)


def samples(folders: list[Path]) -> list[Sample]:
    """What can be sent of the files in some folders."""
    found = [sample(p) for folder in folders for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".md"]
    return [s for s in found if s is not None]


def stored(spool: Path) -> set[tuple[str, str, bytes]]:
    """(SOP Instance UID, Transfer Syntax UID, data set) of every file under a final name."""
    split = [split_file(path) for path in stored_files(spool)]
    return {(meta_value(meta, 0x0003), meta_value(meta, 0x0010), data) for meta, data in split}


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """The images that come with pydicom; without the media directories among them."""
    folder = tmp_path_factory.mktemp("bundled")
    for path in (Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm"):
        (folder / path.name).symlink_to(path)
    return samples([folder])


@pytest.fixture(params=["shared", "bundled"])
def gathered(request: pytest.FixtureRequest, bundled: list[Sample]) -> list[Sample]:
    """Files in many transfer syntaxes and character sets."""
    if request.param == "bundled":
        return bundled
    data: Path = request.getfixturevalue("data")
    found = samples([data / "transfer-syntaxes", data / "charsets"])
    assert len(found) > 30
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_every_file_is_kept_as_it_is_sent(service: Make, gathered: list[Sample], shape: str) -> None:
    """Over a context of its own SOP Class and transfer syntax; however commands and data are cut into PDUs."""
    house, cut = service(role="listen").start(), random.Random(shape)
    told = {s.path.name: _sent(house, s, SHAPES[shape](), cut if shape == "at random" else None) for s in gathered}
    expected = {name: status for name, status in told.items() if name in CUT_SHORT}
    expected |= {name: REFUSED.get(name, 0x0000) for name in told.keys() - CUT_SHORT}
    assert told == expected, refusals(house)
    taken = {(s.uid, s.context[1], s.data) for s in gathered if told[s.path.name] == 0x0000}
    there = stored(house.data / "spool")
    assert {uid for uid, *_ in taken - there} == set(), "acknowledged, and not kept as it was sent"
    assert {uid for uid, *_ in there - taken} == set(), "kept, and not sent so"


def refusals(house: Service) -> list[str]:
    """What the listener's log says of the instances that it refused."""
    lines = [line for line in house.log.read_text("utf-8").splitlines() if "InstanceRefused" in line]
    return [str(json.loads(line)["reason"]) for line in lines]


def _sent(house: Service, one: Sample, shape: Plain, cut: random.Random | None) -> int:
    with associated(house.port, [one.context]) as wire:
        assert one.context in wire.accepted, f"{one.path.name}: {one.context} is not accepted"
        return wire.store(one.uid, one.data, one.context, shape, cut)


def test_fragments_of_one_byte_make_the_same_file(service: Make) -> None:
    """Command and data set byte by byte, in PDUs of many and of one PDV, and every byte in a TCP segment of its own."""
    rng, house = random.Random(1), service(role="listen").start()
    shapes: list[Plain] = [
        Together(fragment=1),
        Scattered(fragment=1, largest=1, rng=rng),
        Scattered(largest=3, rng=rng),
    ]
    made = [make(rng, 700) for _ in shapes]
    with associated(house.port) as wire:
        for one, shape in zip(made, shapes, strict=True):
            assert wire.store(one.uid, one.data, shape=shape) == 0x0000
    assert stored(house.data / "spool") == {(m.uid, EXPLICIT, m.data) for m in made}


def test_a_cut_at_every_byte_of_the_stream_makes_the_same_file(service: Make) -> None:
    """The same message in two TCP segments, cut after its first byte, after its second, and so on."""
    rng, house = random.Random(2), service(role="listen").start()
    study = new_uid(rng)
    with associated(house.port) as wire:
        length, cuts, made = 1, 0, []
        while cuts < length:
            made.append(make(rng, 64, study))
            stream = b"".join(_message(wire, made[-1].uid, made[-1].data))
            length, cuts = len(stream), cuts + 1
            wire.socket.sendall(stream[:cuts])
            time.sleep(0.0005)  # or the kernel sends both as one
            wire.socket.sendall(stream[cuts:])
            assert wire.answer() == 0x0000
    assert stored(house.data / "spool") == {(m.uid, EXPLICIT, m.data) for m in made}


def _message(wire: Wire, uid: str, data: bytes) -> Iterator[bytes]:
    return Together(fragment=200).pdus(wire.accepted[CT, EXPLICIT], wire.request(CT, uid), [data], wire.longest)


# --- what DCMTK sends ------------------------------------------------------------------------------------------------

# The transfer syntaxes that storescu can propose, and its option for each.
OPTIONS = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.5": "-xr",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
}


@contextmanager
def storescp(folder: Path) -> Iterator[int]:
    """DCMTK's own receiver, which writes what comes bit by bit; its port."""
    folder.mkdir()
    (port,) = free_ports(1)
    with subprocess.Popen([tool("storescp"), "+B", "+xa", "-od", str(folder), str(port)], env=_prompt()) as process:
        try:
            wait_for(lambda: _answers(port), 10, "storescp")
            yield port
        finally:
            process.terminate()


def _prompt() -> dict[str, str]:
    return {**os.environ, "TCP_NODELAY": "1"}


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _storescu(port: int, one: Sample) -> int:
    arguments = ["-R", OPTIONS[one.context[1]], "-aec", "OVERREAD", "127.0.0.1", str(port), str(one.path)]
    done = subprocess.run([tool("storescu"), *arguments], env=_prompt(), capture_output=True, check=False, timeout=30)
    return done.returncode


def test_what_storescu_sends_is_kept_as_dcmtk_itself_keeps_it(
    service: Make, gathered: list[Sample], tmp_path: Path
) -> None:
    """storescu writes data sets anew, so the truth is what storescp gets from it when it keeps every bit."""
    house, compared = service(role="listen").start(), 0
    sendable = [s for s in gathered if s.context[1] in OPTIONS and s.path.name not in (*REFUSED, *CUT_SHORT)]
    with storescp(tmp_path / "truth") as truth:
        for one in sendable:
            if _storescu(truth, one) != 0:
                continue  # DCMTK cannot send it
            (path,) = (tmp_path / "truth").iterdir()
            meta, data = split_file(path)
            path.unlink()
            assert _storescu(house.port, one) == 0, f"{one.path.name}: {refusals(house)[-1:]}"
            kept = (one.uid, meta_value(meta, 0x0010), data)
            assert kept in stored(house.data / "spool"), f"{one.path.name} is kept otherwise"
            compared += 1
    assert compared > len(sendable) / 2, f"only {compared} of {len(sendable)}"
