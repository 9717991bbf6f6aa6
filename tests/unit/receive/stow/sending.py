"""Requests of STOW-RS as bytes, and what comes back."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from overread.spool.meta import file_meta

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
BOUNDARY = "=.frontier-7"
RELATED = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'
PART = b"Content-Type: application/dicom\r\n"


def part10(uid: str, data: bytes, sop_class: str = CT, syntax: str = EXPLICIT) -> bytes:
    """A DICOM file."""
    return file_meta(sop_class, uid, syntax, "SOMEBODY") + data


def related(parts: Iterable[bytes], header: bytes = PART, boundary: str = BOUNDARY, closing: str = "--\r\n") -> bytes:
    """A multipart body."""
    line = b"--" + boundary.encode()
    return b"".join(line + b"\r\n" + header + b"\r\n" + part + b"\r\n" for part in parts) + line + closing.encode()


def chunked(body: bytes, size: int) -> bytes:
    """The body in chunks of so many bytes."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def head(*lines: str, target: str = "/dicom-web/studies", method: str = "POST", media: str = RELATED) -> bytes:
    """The head of a request; ``lines`` add to it."""
    first = (f"{method} {target} HTTP/1.1", "Host: localhost", *((f"Content-Type: {media}",) if media else ()))
    return "\r\n".join((*first, *lines, "", "")).encode("latin-1")


@dataclass(frozen=True)
class Reply:
    """What was answered."""

    status: int
    fields: http.client.HTTPMessage
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    def uids(self, tag: str) -> list[str]:
        return [item["00081155"]["Value"][0] for item in self.json.get(tag, {}).get("Value", [])]

    @property
    def stored(self) -> list[str]:
        return self.uids("00081199")

    def failed(self) -> dict[str, int]:
        items = self.json.get("00081198", {}).get("Value", [])
        return {item["00081155"]["Value"][0]: item["00081197"]["Value"][0] for item in items}

    @property
    def other(self) -> list[int]:
        return [item["00081197"]["Value"][0] for item in self.json.get("0008119A", {}).get("Value", [])]


class Kept(io.BufferedReader):
    """What was read of a socket beyond one response, for the next."""

    def __init__(self, wire: socket.socket) -> None:
        super().__init__(wire.makefile("rb", buffering=0))  # type: ignore[arg-type]

    def makefile(self, _mode: str) -> Kept:
        return self

    def close(self) -> None:
        """A response closes what it was read from."""


def read_reply(wire: socket.socket | Kept, method: str = "POST") -> Reply:
    """The next response on a socket."""
    with contextlib.closing(http.client.HTTPResponse(wire, method=method)) as response:
        response.begin()
        return Reply(response.status, response.headers, response.read())


def exchange(port: int, *pieces: bytes, end: bool = False, timeout_s: float = 10.0) -> Reply:
    """Send bytes on a new connection and read one response; ``end`` says that nothing more comes."""
    with socket.create_connection(("127.0.0.1", port), timeout_s) as wire:
        for piece in pieces:
            wire.sendall(piece)
        if end:
            wire.shutdown(socket.SHUT_WR)
        return read_reply(wire, pieces[0].partition(b" ")[0].decode("latin-1"))


def post(port: int, body: bytes, *lines: str, target: str = "/dicom-web/studies", media: str = RELATED) -> Reply:
    """A request with Content-Length."""
    return exchange(port, head(f"Content-Length: {len(body)}", *lines, target=target, media=media), body)


def store(port: int, parts: Sequence[bytes], *lines: str, **more: str) -> Reply:
    """A well-formed request."""
    return post(port, related(parts), *lines, **more)
