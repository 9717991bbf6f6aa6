"""A real Orthanc with DICOMweb, from a copy of the program, on free ports; it asks and answers storage commitment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from house import free_ports, wait_for

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def program(name: str) -> str:
    """The path of a program; skips without it, fails when CI=true."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    if found is None:
        _lacking(f"{name} is not installed")
    return str(found)


def _lacking(what: str) -> None:
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)


class Archive:
    """One Orthanc in a folder of its own. ``modalities`` are those that it knows, title to port of loopback."""

    def __init__(self, folder: Path, modalities: Mapping[str, int], **settings: Any) -> None:
        self._folder, self._modalities, self._settings = folder, modalities, settings
        self.dimse, self.http = free_ports(2)
        self.url = f"http://127.0.0.1:{self.http}/dicom-web"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Archive:
        if not PLUGIN.exists():
            _lacking("Orthanc's DICOMweb plugin is missing")
        binary = shutil.copy(program("Orthanc"), self._folder / "orthanc-copy")
        config = self._folder / "orthanc.json"
        config.write_text(json.dumps(self._config()), "utf-8")
        with (self._folder / "orthanc.log").open("wb") as log:
            environment = {**os.environ, "TCP_NODELAY": "1"}
            command = [binary, str(config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, env=environment)
        auth = next(iter(self._settings.get("RegisteredUsers", {}).items()), None)
        self.web = httpx.Client(base_url=f"http://127.0.0.1:{self.http}", timeout=30, auth=auth)
        wait_for(self._answers, 60, "Orthanc's start")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.web.close()
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(30)

    def uids(self) -> set[str]:
        """SOP Instance UIDs of all that it holds."""
        query = {"Level": "Instance", "Query": {}, "Expand": True}
        return {one["MainDicomTags"]["SOPInstanceUID"] for one in self.web.post("/tools/find", json=query).json()}

    def forget(self, uid: str) -> None:
        """Delete one instance behind everybody's back."""
        query = {"Level": "Instance", "Query": {"SOPInstanceUID": uid}}
        for name in self.web.post("/tools/find", json=query).json():
            self.web.delete(f"/instances/{name}").raise_for_status()

    def _config(self) -> dict[str, Any]:
        return {
            "Name": "overread tests",
            "StorageDirectory": str(self._folder / "db"),
            "IndexDirectory": str(self._folder / "db"),
            "Plugins": [str(PLUGIN)],
            "HttpPort": self.http,
            "DicomPort": self.dimse,
            "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "DicomAlwaysAllowFind": True,
            "DicomModalities": {t.lower(): [t, "127.0.0.1", port] for t, port in self._modalities.items()},
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            **self._settings,
        }

    def _answers(self) -> bool:
        try:
            return self.web.get("/system").status_code == 200
        except httpx.TransportError:
            return False
