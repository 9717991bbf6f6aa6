"""The head of a Part 10 file, cut anywhere, with a group length that is right, wrong or missing."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from overread.domain.errors import Refused
from overread.receive.stow.part10 import MOST_META_BYTES, FileHead
from overread.spool.meta import file_meta

UIDS = ("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4", "1.2.840.10008.1.2.1")
DATA = bytes(range(256)) * 20


def split(pieces: list[bytes]) -> tuple[tuple[str, str, str], bytes]:
    """The UIDs, and what follows the file meta information."""
    head, rest = FileHead(), b""
    begun = False
    for piece in pieces:
        if begun:
            rest += piece
        elif (after := head.take(piece)) is not None:
            begun, rest = True, b"".join(bytes(p) for p in after)
    assert begun
    return (head.uid(0x00020002), head.uid(0x00020003), head.uid(0x00020010)), rest


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", 2, tag, vr, len(value)) + value


def test_cut_at_every_place() -> None:
    file = file_meta(*UIDS, "CT1") + DATA
    for at in range(len(file)):
        assert split([file[:at], file[at:]]) == (UIDS, DATA), at
    assert split([file[i : i + 1] for i in range(len(file))]) == (UIDS, DATA)


@pytest.mark.parametrize("length", [None, 0, 30, 10**6])
def test_a_group_length_that_is_missing_or_lies(length: int | None) -> None:
    good = file_meta(*UIDS, "CT1")
    said = b"" if length is None else element(0, b"UL", struct.pack("<L", length))
    assert split([good[:132] + said + good[144:] + DATA]) == (UIDS, DATA)


def test_a_deflated_data_set_may_begin_like_more_meta_information() -> None:
    uids = (*UIDS[:2], "1.2.840.10008.1.2.1.99")
    data = b"\x02\x00" + DATA
    assert split([file_meta(*uids, "CT1") + data]) == (uids, data)


def test_values_with_long_lengths_are_read_over() -> None:
    good = file_meta(*UIDS, "CT1")
    private = element(0x0100, b"UI", b"1.2\0") + struct.pack("<HH2sHL", 2, 0x0102, b"OB", 0, 5000) + b"\x02" * 5000
    assert split([good + private + DATA]) == (UIDS, DATA)


@pytest.mark.parametrize(
    "content",
    [
        b"GIF89a" * 100,
        bytes(128) + b"DICX" + bytes(100),
        file_meta("", *UIDS[1:], "X") + DATA,
        file_meta(UIDS[0], "../../x", UIDS[2], "X") + DATA,
        file_meta(*UIDS[:2], "", "X") + DATA,
        bytes(128) + b"DICM" + DATA,
        bytes(128) + b"DICM" + element(1, b"??", b"x") + DATA,
        bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 1, b"OB", 0, 0xFFFFFFF0) + DATA,
        bytes(128) + b"DICM" + element(1, b"SH", b"x" * 1000) * (MOST_META_BYTES // 1000 + 1) + DATA,
    ],
    ids=[
        "a picture",
        "another prefix",
        "no class",
        "a path",
        "no syntax",
        "no meta",
        "no VR",
        "a lying length",
        "endless",
    ],
)
def test_what_is_no_head_is_refused_with_the_reason(content: bytes) -> None:
    for pieces in ([content], [content[i : i + 1000] for i in range(0, len(content), 1000)]):
        with pytest.raises(Refused):
            split(pieces)


def test_a_head_that_is_cut_off_never_completes() -> None:
    file = file_meta(*UIDS, "CT1")
    for at in range(len(file)):
        assert FileHead().take(file[:at]) is None


def test_it_agrees_with_pydicom() -> None:
    """On all the test files that pydicom brings and reads without force, but those that break PS3.10 Section 7.1."""
    refused = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(Path(get_testdata_file("CT_small.dcm")).parent.glob("*.dcm")):
            try:
                meta = dcmread(path, stop_before_pixels=True).file_meta
                wanted = (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)
            except Exception:  # what pydicom cannot read is no measure
                continue
            raw = path.read_bytes()
            try:
                uids, rest = split([raw])
            except Refused:
                refused.add(path.name)
            else:
                assert uids == wanted and raw.endswith(rest), path.name
    assert refused <= {"nested_priv_SQ.dcm"}  # its UIDs there are empty
