"""STOW-RS over real sockets: what is reported stored is exactly what is."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from overread.domain.events import InstanceReceived, InstanceRefused, RequestAnswered

from ..conftest import until
from .conftest import Clinic
from .sending import BOUNDARY, PART, RELATED, Kept, chunked, exchange, head, part10, post, read_reply, related, store

Start = Callable[..., Clinic]
Slices = list[tuple[str, bytes]]


def test_what_is_reported_stored_lies_in_the_spool_byte_for_byte(
    clinic: Start, ct_bytes: Slices, files: list[bytes]
) -> None:
    home = clinic()
    reply = store(home.port, files)
    assert (reply.status, reply.stored) == (200, [uid for uid, _ in ct_bytes])
    assert "00081198" not in reply.json and "0008119A" not in reply.json
    assert home.stored() == dict(ct_bytes)
    assert home.incoming() == [] and len(list(home.spool.instance_paths())) == len(files)
    assert {arrival.calling_ae for arrival in home.arrivals} == {"STOW-RS"}
    assert until(lambda: home.said(RequestAnswered))
    assert [(e.status, e.stored, e.failed) for e in home.said(RequestAnswered)] == [(200, len(files), 0)]


@pytest.mark.parametrize("size", [1, 7, 100, 4096, 100_000, 10**7])
def test_bodies_in_chunks_of_any_size(clinic: Start, ct_bytes: Slices, files: list[bytes], size: int) -> None:
    home = clinic()
    reply = exchange(home.port, head("Transfer-Encoding: chunked"), chunked(related(files[:3]), size))
    assert (reply.status, reply.stored) == (200, [uid for uid, _ in ct_bytes[:3]])
    assert home.stored() == dict(ct_bytes[:3])


def test_one_connection_serves_many_requests_also_sent_ahead(
    clinic: Start, ct_bytes: Slices, files: list[bytes]
) -> None:
    home = clinic()
    asked = b""
    for number, file in enumerate(files[:6]):
        body = related([file])
        in_chunks = number % 2
        line = "Transfer-Encoding: chunked" if in_chunks else f"Content-Length: {len(body)}"
        asked += head(line) + (chunked(body, 1000) if in_chunks else body)
    with socket.create_connection(("127.0.0.1", home.port), 10) as wire:
        wire.sendall(asked)
        kept = Kept(wire)
        replies = [read_reply(kept) for _ in range(6)]
    assert [r.stored for r in replies] == [[uid] for uid, _ in ct_bytes[:6]]


def test_the_body_is_asked_for_when_the_sender_waits_for_that(clinic: Start, files: list[bytes]) -> None:
    home, body = clinic(), related(files[:1])
    with socket.create_connection(("127.0.0.1", home.port), 10) as wire:
        wire.sendall(head(f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert wire.recv(1000).startswith(b"HTTP/1.1 100 ")
        wire.sendall(body)
        assert read_reply(wire).status == 200


def test_nothing_is_asked_for_that_will_not_be_taken(clinic: Start) -> None:
    reply = exchange(clinic().port, head("Content-Length: 100", "Expect: 100-continue", "Accept: text/html"))
    assert reply.status == 406


def test_one_bad_part_among_good_ones_fails_alone(clinic: Start, ct_bytes: Slices, files: list[bytes]) -> None:
    home = clinic()
    cut = files[1][:-100]
    reply = store(home.port, [files[0], cut, b"what is this?", files[2]])
    assert (reply.status, reply.stored) == (202, [ct_bytes[0][0], ct_bytes[2][0]])
    assert reply.failed() == {ct_bytes[1][0]: 0xC000} and reply.other == [0xC000]
    assert home.stored() == dict([ct_bytes[0], ct_bytes[2]])
    kept = {entry.facts.sop_instance_uid: entry.file.read_bytes() for entry in home.quarantine.entries()}
    assert kept[""].endswith(b"what is this?")
    assert kept[ct_bytes[1][0]].endswith(ct_bytes[1][1][:-100])
    assert "pixel" in reply.fields["Warning"].lower() or reply.fields["Warning"].startswith("299 overread ")
    assert len(home.said(InstanceRefused)) == 2


def test_all_failed_is_a_conflict_and_never_200(clinic: Start, files: list[bytes]) -> None:
    home = clinic()
    reply = store(home.port, [files[0][:-1], b"rubbish"])
    assert (reply.status, reply.stored, home.stored()) == (409, [], {})
    assert len(reply.failed()) == 1 and len(reply.other) == 1


@pytest.mark.parametrize("closing", ["", "\r\n", "-", "--", "--\r\n", "--\r\nepilogue", "   \r\n", None], ids=repr)
def test_a_missing_closing_boundary_loses_nothing(
    clinic: Start, ct_bytes: Slices, files: list[bytes], closing: str | None
) -> None:
    home = clinic()
    body = related(files[:2], closing=closing or "")
    if closing is None:
        body = body.removesuffix(b"\r\n--" + BOUNDARY.encode())
    reply = post(home.port, body)
    stored = [uid for uid, _ in ct_bytes[:2]]
    assert reply.stored == stored and home.stored() == dict(ct_bytes[:2])
    extra = closing in ("\r\n", "   \r\n")  # that is a boundary, and a part that has no end
    assert (reply.status, reply.other) == ((202, [0xC000]) if extra else (200, []))


def test_a_body_cut_off_anywhere_never_reports_what_is_not_there(
    clinic: Start, ct_bytes: Slices, files: list[bytes]
) -> None:
    """Cut within the second part, framed as complete: between elements, within the pixels, before them."""
    home = clinic()
    whole = related(files[:2], closing="")
    second = whole.rindex(b"DICM")
    first_uid = ct_bytes[0][0]
    for at in [*range(second + 5, second + 1200, 37), *range(len(whole) - 60, len(whole) - len(BOUNDARY) - 4, 7)]:
        reply = post(home.port, whole[:at])
        assert (reply.status, reply.stored) == (202, [first_uid]), at
    assert set(home.stored()) == {first_uid}


def test_a_connection_that_breaks_keeps_what_was_whole_and_no_draft(
    clinic: Start, ct_bytes: Slices, files: list[bytes]
) -> None:
    home, body = clinic(), related(files[:3])
    at = body.rindex(b"DICM") + 3000
    reply = exchange(home.port, head(f"Content-Length: {len(body)}"), body[:at], end=True)
    assert (reply.status, reply.stored, reply.other) == (202, [uid for uid, _ in ct_bytes[:2]], [0xC000])
    assert home.stored() == dict(ct_bytes[:2]) and home.incoming() == []
    reply = exchange(home.port, head("Transfer-Encoding: chunked"), chunked(body, 999)[:900], end=True)
    assert reply.status == 400 and home.incoming() == []


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Type: application/dicom; transfer-syntax=1.2.840.10008.1.2.1\r\n",
        b'Content-Type: application/dicom; transfer-syntax="1.2.840.10008.1.2.1"\r\n',
        b"content-type:APPLICATION/DICOM;transfer-syntax=*\r\nContent-Length: 5\r\n",
        b"Content-Type: application/dicom;\r\n transfer-syntax=1.2.840.10008.1.2.4.90\r\nContent-Location: x\r\n",
        b"Content-Transfer-Encoding: binary\r\nMIME-Version: 1.0\r\n",
        b"",
    ],
)
def test_headers_of_a_part_as_senders_write_them(
    clinic: Start, ct_bytes: Slices, files: list[bytes], header: bytes
) -> None:
    home = clinic()
    reply = post(home.port, related(files[:1], header))
    assert (reply.status, reply.stored) == (200, [ct_bytes[0][0]]) and home.stored() == dict(ct_bytes[:1])


@pytest.mark.parametrize(
    "media",
    [
        f"multipart/related; type=application/dicom; boundary={BOUNDARY}",
        f'Multipart/Related; TYPE="application/dicom"; BOUNDARY="{BOUNDARY}"; start="<1>"',
        f"multipart/related;boundary={BOUNDARY}",
        f'multipart/related; boundary="{BOUNDARY[:3]}\\{BOUNDARY[3:]}"; type="application/dicom; transfer-syntax=*"',
    ],
)
def test_parameters_quoted_and_not(clinic: Start, files: list[bytes], media: str) -> None:
    assert store(clinic().port, files[:1], media=media).status == 200


def test_preamble_epilogue_padding_and_empty_parts(clinic: Start, ct_bytes: Slices, files: list[bytes]) -> None:
    home, line = clinic(), b"--" + BOUNDARY.encode()
    good = line + b" \t\r\n" + PART + b"\r\n" + files[0] + b"\r\n"
    empty = line + b"\r\n" + PART + b"\r\n"
    reply = post(home.port, b"this is multipart\r\n" + empty + good + empty + b"\r\n" + line + b"--\r\nthe end")
    assert (reply.status, reply.stored, reply.other) == (202, [ct_bytes[0][0]], [0xC000, 0xC000])


def test_a_line_that_only_begins_like_the_boundary_is_content(clinic: Start) -> None:
    """Within the pixels stands a line that goes on after the boundary's letters."""
    from pydicom import dcmread
    from pydicom.data import get_testdata_file
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import dcmwrite

    image = dcmread(get_testdata_file("CT_small.dcm"))
    lure = b"\r\n--" + BOUNDARY.encode()
    pixels = (lure + b"x") * 50 + lure + b"-x" + lure + b" x"
    image.PixelData = pixels + image.PixelData[len(pixels) :]
    buffer = DicomBytesIO()
    dcmwrite(buffer, image)
    home = clinic()
    reply = store(home.port, [buffer.getvalue()])
    assert (reply.status, reply.stored) == (200, [str(image.SOPInstanceUID)])
    assert home.stored()[str(image.SOPInstanceUID)].count(lure) == 52


def test_the_study_in_the_path_is_the_study_of_the_instance(
    clinic: Start, files: list[bytes], ct_bytes: Slices
) -> None:
    home = clinic()
    reply = store(home.port, files[:2], target="/dicom-web/studies/1.2.3")
    assert (reply.status, set(reply.failed().values()), home.stored()) == (409, {0xA900}, {})
    study = _study(ct_bytes)
    assert store(home.port, files[:2], target=f"/dicom-web/studies/{study}").status == 200


def _study(ct_bytes: Slices) -> str:
    from overread.spool.header import read_instance

    return read_instance(ct_bytes[0][1], "1.2.840.10008.1.2.1").study_uid


def test_the_file_meta_information_must_speak_of_its_data_set(clinic: Start, ct_bytes: Slices) -> None:
    home = clinic()
    (first, data), (second, _) = ct_bytes[:2]
    reply = store(home.port, [part10(second, data), part10(first, data, sop_class="1.2.840.10008.5.1.4.1.1.4")])
    assert (reply.status, reply.failed()) == (409, {second: 0xA900, first: 0xA900})
    assert home.stored() == {}


def test_names_with_escapes_and_paths_stay_in_the_house(clinic: Start, ct_bytes: Slices) -> None:
    home = clinic()
    data = ct_bytes[0][1]
    evil = ["../../../../tmp/x", "1.2/../3", "1.2.\x1b[31m", "1.2\\3", "<a>", "1." + "2" * 70]
    reply = store(home.port, [part10(uid, data) for uid in evil])
    assert (reply.status, reply.failed(), len(reply.other)) == (409, {}, len(evil))
    assert "\x1b" not in reply.fields["Warning"] and home.stored() == {}
    for target in ("/dicom-web/studies/../../x", "/dicom-web/studies/%2e%2e%2f", "/dicom-web/studies/1.2%0d%0aX:1"):
        assert store(home.port, [b"x"], target=target).status in (400, 404)


def test_the_same_again_is_stored_again_and_said_so(clinic: Start, files: list[bytes]) -> None:
    home = clinic()
    assert [store(home.port, files[:1]).status for _ in range(2)] == [200, 200]
    assert len(home.said(InstanceReceived)) == 0 and len(home.arrivals) == 2  # the receipts tell of it later
    assert len(list(home.spool.instance_paths())) == 1


@pytest.mark.parametrize(
    ("lines", "more", "status"),
    [
        ((), {"media": "application/dicom"}, 415),
        ((), {"media": ""}, 415),
        ((), {"media": f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}'}, 415),
        ((), {"media": f"multipart/form-data; boundary={BOUNDARY}"}, 415),
        (("Content-Encoding: gzip",), {}, 415),
        (("Content-Encoding: deflate",), {}, 415),
        ((), {"media": 'multipart/related; type="application/dicom"'}, 400),
        ((), {"media": 'multipart/related; type="application/dicom"; boundary="tab\tin"'}, 400),
        ((), {"media": 'multipart/related; type="application/dicom"; boundary=another'}, 400),
        (("Accept: text/html",), {}, 406),
        (("Accept: application/dicom+json;q=0",), {}, 406),
        ((), {"target": "/"}, 404),
        ((), {"target": "/dicom-web/studiesx"}, 404),
        ((), {"target": "/dicom-web/studies/1.2/series"}, 404),
        ((), {"target": "/dicom-web/studies/abc"}, 400),
        (("Content-Length: 3",), {}, 400),
        (("Transfer-Encoding: chunked",), {}, 400),
        (("Transfer-Encoding: gzip",), {}, 501),
    ],
)
def test_what_is_not_for_us_is_answered_as_the_standard_says(
    clinic: Start, files: list[bytes], lines: tuple[str, ...], more: dict[str, str], status: int
) -> None:
    home = clinic()
    reply = store(home.port, files[:1], *lines, **more)
    assert reply.status == status
    assert home.stored() == {} and until(lambda: home.said(RequestAnswered))
    assert home.said(RequestAnswered)[0].status == status


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_not_allowed_here(clinic: Start, method: str) -> None:
    reply = exchange(clinic().port, head("Content-Length: 0", method=method, media=""))
    assert (reply.status, reply.fields["Allow"]) == (405, "POST")
    assert bool(reply.content) is (method != "HEAD")


def test_a_request_without_length_or_body(clinic: Start) -> None:
    port = clinic().port
    assert exchange(port, head()).status == 411
    assert exchange(port, head("Content-Length: 0")).status == 400
    assert exchange(port, head("Transfer-Encoding: chunked"), b"0\r\n\r\n").status == 400
    assert exchange(port, head("Transfer-Encoding: chunked"), b"5\r\nhello\r\nzzz\r\n").status == 400
    assert exchange(port, b"\x16\x03\x01 this is TLS\r\n\r\n").status == 400
    assert exchange(port, b"POST /dicom-web/studies HTTP/1.1\r\n\r\n").status == 400  # no Host


def test_parts_that_are_not_dicom(clinic: Start, ct_bytes: Slices, files: list[bytes]) -> None:
    """None of them: 415. Some of them: those that are, are stored."""
    home = clinic()
    picture = related([b"GIF89a"], b"Content-Type: image/gif\r\n", closing="")
    assert post(home.port, picture + b"--\r\n").status == 415
    encoded = related(files[:1], PART + b"Content-Transfer-Encoding: base64\r\n")
    assert post(home.port, encoded).status == 415
    mixed = picture.removesuffix(b"--" + BOUNDARY.encode()) + related(files[:1])
    reply = post(home.port, mixed)
    assert (reply.status, reply.stored, reply.other) == (202, [ct_bytes[0][0]], [0xC000])


def test_a_full_spool_is_said_before_the_body_comes(clinic: Start, files: list[bytes]) -> None:
    home = clinic()
    home.room = False
    reply = store(home.port, files)
    assert (reply.status, reply.fields["Retry-After"]) == (503, "60")
    assert home.stored() == {}


def test_a_spool_that_becomes_full_is_said_of_each_instance(
    clinic: Start, files: list[bytes], ct_bytes: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, asked = clinic(), []

    def room_for_one() -> bool:
        asked.append(1)
        return len(asked) <= 2

    home.server._site.intake.room = room_for_one
    reply = store(home.port, files[:3])
    assert (reply.status, reply.stored) == (202, [ct_bytes[0][0]])
    assert reply.failed() == {uid: 0xA700 for uid, _ in ct_bytes[1:3]}


def test_a_disk_that_takes_nothing_is_503(clinic: Start, files: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    home = clinic()

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(home.spool, "keep_draft", broken)
    reply = store(home.port, files[:2])
    assert (reply.status, set(reply.failed().values())) == (503, {0xA700})
    assert reply.fields["Retry-After"] and home.incoming() == []


def test_limits_are_answered_with_what_is_stored(clinic: Start, ct_bytes: Slices, files: list[bytes]) -> None:
    large = len(files[0]) + 5000
    home = clinic(part_bytes=large, request_bytes=4 * large, parts=3)
    assert post(home.port, related(files)).status == 413  # by Content-Length, before anything is read
    assert home.stored() == {}
    reply = exchange(home.port, head("Transfer-Encoding: chunked"), chunked(related(files), 5000), end=True)
    assert (reply.status, set(reply.stored)) == (413, set(home.stored())) and 0 < len(reply.stored) < len(files)
    small = [files[0], b"", b"", files[1]]
    reply = store(home.port, small)
    assert (reply.status, reply.stored, len(reply.other)) == (413, [ct_bytes[0][0]], 3)
    reply = store(home.port, [files[0] + bytes(2 * large), files[1]])
    assert (reply.status, reply.failed(), reply.stored) == (202, {ct_bytes[0][0]: 0xA700}, [ct_bytes[1][0]])
    assert store(home.port, [files[0] + bytes(2 * large)]).status == 413
    assert home.incoming() == []


def test_heads_and_part_headers_have_a_limit(clinic: Start, ct_bytes: Slices, files: list[bytes]) -> None:
    home = clinic(header_bytes=2048)
    assert exchange(home.port, head("X-Long: " + "x" * 3000)).status == 431
    assert exchange(home.port, b"POST /" + b"x" * 3000).status == 431
    line = b"--" + BOUNDARY.encode() + b"\r\n"
    huge = line + PART + b"X: " + b"y" * 300_000 + b"\r\n\r\n" + files[1] + b"\r\n"
    reply = post(home.port, huge + related(files[:1]))
    assert (reply.status, reply.stored, reply.other) == (202, [ct_bytes[0][0]], [0xC000])


def test_a_preamble_without_end_is_no_multipart(clinic: Start) -> None:
    assert post(clinic().port, b"x" * 500_000).status == 400


def test_the_answer_in_xml_and_json(clinic: Start, ct_bytes: Slices, files: list[bytes]) -> None:
    """Read by other programs' eyes: pydicom's JSON model, and the names of PS3.19 in XML."""
    from xml.etree import ElementTree

    from pydicom import Dataset

    home, parts = clinic(), [files[0], files[1][:-10], b"junk"]
    reply = store(home.port, parts)
    assert reply.fields["Content-Type"] == "application/dicom+json"
    read = Dataset.from_json(reply.json)
    assert [i.ReferencedSOPInstanceUID for i in read.ReferencedSOPSequence] == [ct_bytes[0][0]]
    assert [(i.ReferencedSOPInstanceUID, i.FailureReason) for i in read.FailedSOPSequence] == [(ct_bytes[1][0], 0xC000)]
    assert [i.FailureReason for i in read.OtherFailuresSequence] == [0xC000] and read.RetrieveURL in ("", None)
    reply = store(home.port, parts, "Accept: application/dicom+xml, */*;q=0.1")
    assert reply.fields["Content-Type"] == "application/dicom+xml"
    root = ElementTree.fromstring(reply.content)
    place = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
    assert root.tag == f"{place}NativeDicomModel"
    found = {
        (sequence.get("keyword"), item.get("number"), value.get("keyword")): value.findtext(f"{place}Value")
        for sequence in root
        for item in sequence.iter(f"{place}Item")
        for value in item
    }
    assert found[("ReferencedSOPSequence", "1", "ReferencedSOPInstanceUID")] == ct_bytes[0][0]
    assert found[("FailedSOPSequence", "1", "FailureReason")] == str(0xC000)
    assert found[("OtherFailuresSequence", "1", "FailureReason")] == str(0xC000)
    assert (
        store(home.port, parts, "Accept: text/html", target="/dicom-web/studies?accept=application/dicom%2Bxml").status
        == 202
    )
    assert home.said(RequestAnswered)[0].reason


def test_two_content_types_or_lengths_are_no_request(clinic: Start, files: list[bytes]) -> None:
    home = clinic()
    assert store(home.port, files[:1], f"Content-Type: {RELATED}").status == 400
    assert store(home.port, files[:1], "Content-Length: 1").status == 400
