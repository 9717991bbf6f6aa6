"""What nobody should send, by STOW-RS: each instance is stored, refused or kept in quarantine, and none is lost."""

from __future__ import annotations

import http.client
import os
import random
import tarfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from overread.domain.events import Trouble
from overread.spool.header import read_file

from .conftest import Clinic
from .sending import BOUNDARY, PART, Reply, chunked, exchange, head, part10, post, related, store

Start = Callable[..., Clinic]
# More with OVERREAD_FUZZ=20000.
BODIES = int(os.environ.get("OVERREAD_FUZZ", "600"))


def truth(home: Clinic, reply: Reply, before: int) -> None:
    """What the answer calls stored is what came since ``before``, and lies there whole."""
    came = [home.spool.absolute(arrival.stored.path) for arrival in home.arrivals[before:]]
    told = reply.stored if reply.fields["Content-Type"] == "application/dicom+json" else []
    assert sorted(read_file(path).sop_instance_uid for path in came) == sorted(told)
    assert reply.status != 200 or (told and not reply.failed() and not reply.other)


def all_told(home: Clinic, reply: Reply, count: int) -> None:
    assert len(reply.stored) + len(reply.failed()) + len(reply.other) == count
    assert home.incoming() == [] and not home.said(Trouble)


@pytest.fixture(scope="module")
def crafted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The malformed files that other projects made and met."""
    folder = tmp_path_factory.mktemp("crafted")
    with tarfile.open(data / "malformed-fuzz" / "fuzz_corpus_v3.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    real = [p for p in (data / "malformed-real").iterdir() if p.is_file() and p.suffix != ".md"]
    return sorted(p for p in folder.rglob("*") if p.is_file()) + sorted(real)


@pytest.mark.timeout(300)
def test_of_every_malformed_file_is_known_where_it_is(clinic: Start, crafted: list[Path]) -> None:
    """Alone in a request: 200 and in the spool, or 409 and in quarantine or with the sender, who knows it."""
    home = clinic()
    stored, kept = 0, 0
    for path in crafted:
        before = len(home.arrivals)
        reply = store(home.port, [path.read_bytes()])
        assert reply.status in (200, 409), path.name
        all_told(home, reply, 1)
        taken = len(home.arrivals) - before
        assert taken == (reply.status == 200) == len(reply.stored), path.name
        if taken:
            arrival = home.arrivals[-1]
            assert path.read_bytes().endswith(_data_set(home.spool.absolute(arrival.stored.path))), path.name
            stored += 1
        entries = sum(1 for _ in home.quarantine.root.glob("*.dcm"))
        failure = [*reply.failed().values(), *reply.other]
        assert entries - kept == (failure == [0xC000]) or path.stat().st_size == 0, path.name
        kept = entries
    assert stored > 50 and kept > 10
    for told in home.spool.instance_paths():
        read_file(home.spool.absolute(told))


def _data_set(path: Path) -> bytes:
    raw = path.read_bytes()
    return raw[144 + int.from_bytes(raw[140:144], "little") :]


def test_many_malformed_files_in_one_request(clinic: Start, crafted: list[Path], files: list[bytes]) -> None:
    home = clinic()
    parts = [path.read_bytes() for path in crafted[::4]]
    parts[10:10] = files[:1]
    reply = store(home.port, parts)
    assert reply.status == 202
    named = [*reply.stored, *reply.failed()]
    assert len(reply.json["00081199"]["Value"]) + len(reply.json["00081198"]["Value"]) + len(reply.other) == len(parts)
    assert set(reply.stored) <= set(home.stored()) and named and home.incoming() == []


def test_pydicoms_own_files(clinic: Start) -> None:
    """In all transfer syntaxes, some imperfect; without other people's data."""
    home = clinic()
    paths = sorted(Path(get_testdata_file("CT_small.dcm")).parent.glob("*.dcm"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        replies = [store(home.port, [path.read_bytes()]) for path in paths]
    assert {reply.status for reply in replies} == {200, 409}
    assert sum(reply.status == 200 for reply in replies) > 40
    for reply in replies:
        all_told(home, reply, 1)


def test_a_deflate_bomb_is_refused_as_content_encoding_and_bounded_as_transfer_syntax(
    clinic: Start, ct_bytes: list[tuple[str, bytes]]
) -> None:
    home = clinic()
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(ct_bytes[0][1]) + packer.compress(bytes(256 << 20)) + packer.flush()
    file = part10(ct_bytes[0][0], bomb, syntax="1.2.840.10008.1.2.1.99")
    reply = store(home.port, [file])
    assert (reply.status, list(reply.failed().values())) == (409, [0xC000]) and home.stored() == {}
    for coding in ("gzip", "deflate", "br", "identity, gzip"):
        assert post(home.port, bomb, f"Content-Encoding: {coding}").status == 415


def test_a_thousand_empty_parts_and_a_million_small_chunks(clinic: Start, files: list[bytes]) -> None:
    home = clinic()
    line = b"--" + BOUNDARY.encode() + b"\r\n\r\n"
    reply = post(home.port, line * 1000 + related(files[:1]))
    assert (reply.status, len(reply.stored), len(reply.other)) == (202, 1, 1000)
    body = related([files[0] + bytes(100_000)])
    assert exchange(home.port, head("Transfer-Encoding: chunked"), chunked(body, 1)).status == 409


def _spoilt(rng: random.Random, files: list[bytes]) -> bytes:
    """A body with something wrong in it, or a few things, or nothing."""
    header = rng.choice(
        [PART, PART, b"", b"Content-Type: image/png\r\n", b"X\r\n", PART + b"X: " + b"y" * 9000 + b"\r\n"]
    )
    parts = [rng.choice(files) for _ in range(rng.randrange(4))]
    body = bytearray(related(parts, header, closing=rng.choice(["--\r\n", "--", "", "\r\n", "--x"])))
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        at = rng.randrange(len(body) + 1)
        match rng.randrange(7):
            case 0:
                del body[at:]
            case 1:
                del body[at : at + rng.choice([1, 2, 100])]
            case 2:
                body[at:at] = rng.randbytes(rng.choice([1, 2, 50]))
            case 3 if at < len(body):
                body[at] ^= 1 << rng.randrange(8)
            case 4:
                body[at:at] = rng.choice([b"\r\n", b"\r\n--", b"--" + BOUNDARY.encode(), b"\r\n\r\n", b"\0" * 9])
            case 5:
                body[at:at] = body[: rng.randrange(len(body) + 1)]
            case _:
                del body[:at]
    return bytes(body)


def _requests(seed: int, files: list[bytes], count: int) -> Iterator[tuple[list[bytes], bytes]]:
    """Requests as they go over the wire, in two pieces, and their bodies: empty when the wire is spoilt, too."""
    rng = random.Random(seed)
    for _ in range(count):
        body = _spoilt(rng, files)
        if rng.random() < 0.5:
            wire = head("Transfer-Encoding: chunked") + chunked(body, rng.choice([1, 9, 700, 10**6])) if body else b""
        else:
            off = rng.choice([0] * 8 + [-5, 7])
            wire = head(f"Content-Length: {max(1, len(body) + off)}") + body
        spoilt = rng.random() < 0.1
        if spoilt:
            at = rng.randrange(len(wire) + 1)
            wire = wire[:at] + rng.randbytes(rng.randrange(3)) + wire[at + rng.randrange(3) :]
        cut = rng.randrange(len(wire) + 1)
        yield [wire[:cut], wire[cut:]], b"" if spoilt else body


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
def test_fuzzed_bodies_never_make_a_false_report(clinic: Start, ct_bytes: list[tuple[str, bytes]], seed: int) -> None:
    """Seeded. After each the server answers the truth, and at the end it is as it was."""
    small = [part10(uid, data) for uid, data in ct_bytes[:4]]
    home = clinic(header_bytes=4096, stall_s=2.0)
    answered = 0
    for pieces, body in _requests(seed, small, BODIES // 3):
        before = len(home.arrivals)
        try:
            reply = exchange(home.port, *pieces, end=True)
        except (OSError, http.client.HTTPException):  # it was no request, or an empty one
            assert len(home.arrivals) == before
            continue
        answered += 1
        assert reply.status < 500 or reply.status == 501  # a spoilt Transfer-Encoding
        truth(home, reply, before)
        for arrival in home.arrivals[before:] if body else ():
            assert _data_set(home.spool.absolute(arrival.stored.path)) in body
    assert answered > BODIES // 3 * 0.8
    assert not home.said(Trouble) and home.incoming() == []
    assert store(home.port, small).status == 200
