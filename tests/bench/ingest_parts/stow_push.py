"""The lean sender of STOW-RS: one connection, every byte prepared before the clock starts.

    python -m ingest_parts.stow_push HOST PORT PATH EACH FOLDER

It says "ready", waits for a line on standard input, then sends the files of FOLDER, so many in each request, each
request when the one before was answered, and prints what it saw as one line of JSON. It believes no status: an instance
is stored when the answer names its UID. It needs no DICOM library.
"""

from __future__ import annotations

import gc
import http.client
import json
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ingest_parts.part10 import read_head

PATIENCE_S = 120.0
BOUNDARY = "0f3cf5c070e041efbaefc6f9f65ec3e1"
STORED, UID = "00081199", "00081155"


class Request(NamedTuple):
    """As it goes over the wire, and the SOP Instance UIDs in it."""

    wire: bytes
    uids: frozenset[str]


def prepared(files: Sequence[Path], path: str, host: str) -> Request:
    """One request with all these files."""
    contents = [file.read_bytes() for file in files]
    start = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"".join(start + content + b"\r\n" for content in contents) + f"--{BOUNDARY}--\r\n".encode()
    head = (
        f"POST {path}/studies HTTP/1.1\r\nHost: {host}\r\nAccept: application/dicom+json\r\n"
        f'Content-Type: multipart/related; type="application/dicom"; boundary={BOUNDARY}\r\n'
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    heads = [read_head(content) for content in contents]
    return Request(head.encode() + body, frozenset(head.sop_instance for head in heads if head is not None))


def main() -> None:
    """Prepare, wait for the word, send."""
    host, port, path, each, folder = sys.argv[1:]
    files = sorted(Path(folder).iterdir())
    step = int(each)
    requests = [prepared(files[at : at + step], path, host) for at in range(0, len(files), step)]
    with socket.create_connection((host, int(port)), PATIENCE_S) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        gc.disable()
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(_send(wire, requests)), flush=True)


def _send(wire: socket.socket, requests: Sequence[Request]) -> dict[str, object]:
    latencies_s: list[float] = []
    refused: list[str] = []
    start = time.monotonic()
    for request in requests:
        before = time.monotonic()
        wire.sendall(request.wire)
        response = http.client.HTTPResponse(wire)
        response.begin()
        said = response.read()
        latencies_s.append(time.monotonic() - before)
        refused += [f"status {response.status}"] * len(request.uids - stored(said))
    return {"start": start, "end": time.monotonic(), "latencies_s": latencies_s, "refused": refused}


def stored(said: bytes) -> frozenset[str]:
    """The SOP Instance UIDs that an answer in JSON says are stored."""
    try:
        items = json.loads(said).get(STORED, {}).get("Value", [])
    except ValueError:
        return frozenset()
    return frozenset(item[UID]["Value"][0] for item in items)


if __name__ == "__main__":
    main()
