"""Senders that others wrote: dicomweb-client, curl, and Orthanc's DICOMweb plugin."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from requests.exceptions import HTTPError

from overread.receive.stow.doorkeeper import AllowList, TokenFile

from .conftest import Clinic

Start = Callable[..., Clinic]
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def missing(what: str) -> None:
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{what} is not installed")


def program(name: str) -> str:
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    if found is None:
        missing(name)
    return str(found)


@pytest.mark.parametrize("count", [1, 13])
def test_dicomweb_client_stores_and_believes_the_answer(clinic: Start, tiny_ct: list[Path], count: int) -> None:
    home = clinic()
    images = [dcmread(path) for path in tiny_ct[:count]]
    client = DICOMwebClient(f"http://127.0.0.1:{home.port}/dicom-web")
    answer = client.store_instances(images)
    uids = [str(image.SOPInstanceUID) for image in images]
    assert [str(item.ReferencedSOPInstanceUID) for item in answer.ReferencedSOPSequence] == uids
    assert set(home.stored()) == set(uids) and "FailedSOPSequence" not in answer
    again = client.store_instances(images, study_instance_uid=images[0].StudyInstanceUID)
    assert len(again.ReferencedSOPSequence) == count


def test_dicomweb_client_learns_what_failed(clinic: Start, tiny_ct: list[Path]) -> None:
    home = clinic()
    good, bad = dcmread(tiny_ct[1]), dcmread(tiny_ct[2])
    bad.PixelData = bad.PixelData[:-100]
    client = DICOMwebClient(f"http://127.0.0.1:{home.port}/dicom-web")
    answer = client.store_instances([good, bad])
    assert [str(item.ReferencedSOPInstanceUID) for item in answer.FailedSOPSequence] == [str(bad.SOPInstanceUID)]
    assert set(home.stored()) == {str(good.SOPInstanceUID)}
    with pytest.raises(HTTPError, match="409"):
        client.store_instances([bad])


def test_curl_as_the_readme_says(clinic: Start, tmp_path: Path, tiny_ct: list[Path]) -> None:
    """With a token, and with the body asked for (curl expects 100-continue)."""
    (tmp_path / "token").write_text("a-token-of-many-letters")
    home = clinic(doorkeeper=AllowList([("*", "127.0.0.0/8")], [TokenFile("CURL", tmp_path / "token")], "OVERREAD"))
    command = [program("curl"), "-sS", "-H", 'Content-Type: multipart/related; type="application/dicom"']
    command += ["-H", "Expect: 100-continue", "-H", "Accept: application/dicom+xml"]
    command += [argument for path in tiny_ct[:3] for argument in ("-F", f"file=@{path};type=application/dicom")]
    url = f"http://127.0.0.1:{home.port}/dicom-web/studies"
    done = subprocess.run([*command, url], capture_output=True, text=True, check=True, timeout=60)
    assert "token" in done.stdout and home.stored() == {}
    command += ["-H", "Authorization: Bearer a-token-of-many-letters", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.count("ReferencedSOPInstanceUID") == len(home.stored()) == 3


@contextlib.contextmanager
def orthanc(folder: Path, server: dict[str, Any]) -> Iterator[Callable[..., Any]]:
    """An Orthanc that knows one DICOMweb server; gives what asks its REST API."""
    copy = shutil.copy(program("Orthanc"), folder / "orthanc-stow")
    if not PLUGIN.exists():
        missing("Orthanc's DICOMweb plugin")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        http, dicom = one.getsockname()[1], two.getsockname()[1]
    settings = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [str(PLUGIN)],
        "HttpPort": http,
        "DicomPort": dicom,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Servers": {"overread": server}},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))

    def ask(path: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{http}{path}", body, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([str(copy), str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder)
    try:
        _until_it_answers(ask)
        yield ask
    finally:
        process.terminate()
        process.wait(30)


def _until_it_answers(ask: Callable[..., Any]) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError):
            ask("/system")
            return
        time.sleep(0.1)
    raise AssertionError("Orthanc did not start")


@pytest.mark.parametrize("in_chunks", [True, False], ids=["chunked", "with Content-Length"])
def test_orthanc_sends_a_study(clinic: Start, tmp_path: Path, tiny_ct: list[Path], in_chunks: bool) -> None:
    """Its plugin counts what the answer says is stored, and fails the job otherwise."""
    (tmp_path / "token").write_text("a-token-of-many-letters")
    home = clinic(doorkeeper=AllowList([("*", "127.0.0.0/8")], [TokenFile("ORTHANC", tmp_path / "token")], "OVERREAD"))
    server = {
        "Url": f"http://127.0.0.1:{home.port}/dicom-web/",
        "HttpHeaders": {"Authorization": "Bearer a-token-of-many-letters"},
        "ChunkedTransfers": in_chunks,
    }
    with orthanc(tmp_path, server) as ask:
        for path in tiny_ct:
            ask("/instances", path.read_bytes())
        (study,) = ask("/studies")
        sent = ask("/dicom-web/servers/overread/stow", json.dumps({"Resources": [study], "Synchronous": True}).encode())
    assert sent["InstancesCount"] == str(len(tiny_ct)) or int(sent["InstancesCount"]) == len(tiny_ct)
    assert set(home.stored()) == {str(dcmread(path).SOPInstanceUID) for path in tiny_ct}
    assert {arrival.calling_ae for arrival in home.arrivals} == {"ORTHANC"}
