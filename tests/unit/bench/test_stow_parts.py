"""The STOW-RS bench sends what it says, and believes only answers that name an instance."""

from __future__ import annotations

import http.client
import json
from email import message_from_bytes
from io import BytesIO
from pathlib import Path

import pytest
from ingest_parts import measure as measuring
from ingest_parts.data import Load, make_load
from ingest_parts.measure import Cell, measure
from ingest_parts.sender import STOW
from ingest_parts.stow_push import prepared, stored
from ingest_parts.stow_receivers import STOW_RECEIVERS

COUNT = 5


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    return make_load("small", tmp_path_factory.mktemp("load") / "small", COUNT)


def test_a_request_holds_the_files_as_another_parser_reads_them(load: Load) -> None:
    request = prepared(load.files, "/dicom-web", "localhost")
    head, _, body = request.wire.partition(b"\r\n\r\n")
    fields = http.client.parse_headers(BytesIO(head.partition(b"\r\n")[2] + b"\r\n\r\n"))
    assert int(fields["Content-Length"]) == len(body) and request.uids == set(load.digests)
    message = message_from_bytes(b"Content-Type: " + fields["Content-Type"].encode() + b"\r\n\r\n" + body)
    assert len(message.get_payload()) == COUNT
    assert all(file.read_bytes() in body for file in load.files)


@pytest.mark.parametrize("said", [b"", b"<xml/>", b"{}", b'{"00081198": {"vr": "SQ", "Value": []}}'])
def test_an_answer_that_names_nothing_stored_nothing(said: bytes) -> None:
    assert stored(said) == frozenset()


def test_an_answer_names_what_is_stored() -> None:
    item = {"00081155": {"vr": "UI", "Value": ["1.2"]}}
    assert stored(json.dumps({"00081199": {"vr": "SQ", "Value": [item]}}).encode()) == {"1.2"}


def test_a_measurement_of_overread_finds_every_byte(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "_calm", lambda: None)
    seen = measure(STOW_RECEIVERS[0], Cell(load, 2, STOW[10]), tmp_path / "receiver")
    assert (seen.identical, seen.indexed, seen.harm, seen.trouble) == (COUNT, COUNT, "", "")
