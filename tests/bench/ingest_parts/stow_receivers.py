"""Who receives by STOW-RS: as ``receivers``, with the path of the service in the place of the AE title."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from ingest_parts.receivers import OVERREAD_KEEPS, SEARCH_PATH, Command, Receiver, free_port

PATH = "/dicom-web"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def _overread(durability: str) -> Command:
    def command(folder: Path, port: int, _connections: int) -> list[str]:
        settings = folder / "overread.toml"
        settings.write_text(
            f'data = "data"\n[receive]\nport = {free_port()}\ndurability = "{durability}"\n'
            f"[receive.stow]\nenabled = true\nport = {port}\n[observe]\nlisten_port = {free_port()}\n",
            "utf-8",
        )
        return [sys.executable, "-m", "overread", "--config", str(settings), "run", "--role", "listen"]

    return command


def orthanc_settings(folder: Path, port: int, dicom_port: int, **more: object) -> dict[str, object]:
    """Orthanc with its DICOMweb plugin, for loopback only."""
    return {
        "Name": "bench",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],
        "HttpServerEnabled": True,
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomPort": dicom_port,
        "StorageCompression": False,
        **more,
        "DicomWeb": {"Enable": True, "Root": f"{PATH}/", **more.get("DicomWeb", {})},  # type: ignore[dict-item]
    }


def _orthanc(folder: Path, port: int, _connections: int) -> list[str]:
    program = shutil.which("Orthanc", path=SEARCH_PATH)
    assert program is not None
    copy = shutil.copy(program, folder / "orthanc-bench")
    (folder / "orthanc.json").write_text(json.dumps(orthanc_settings(folder, port, free_port())), "utf-8")
    return [str(copy), str(folder / "orthanc.json")]


class OrthancWithPlugin(Receiver):
    """Missing also when its plugin is."""

    def missing(self) -> str:
        """As ``Receiver``."""
        return super().missing() or ("" if PLUGIN.exists() else "Orthanc's DICOMweb plugin is not installed")


STOW_RECEIVERS = (
    Receiver("overread", "overread", PATH, _overread("full"), **OVERREAD_KEEPS),
    Receiver("not-durable", "overread, durability off", PATH, _overread("none"), **OVERREAD_KEEPS),
    OrthancWithPlugin("orthanc", "Orthanc", PATH, _orthanc, program="Orthanc"),
)
