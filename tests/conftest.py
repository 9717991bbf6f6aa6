"""For all tests: values we write are valid, no socket leaves this machine, and small CT series to work with."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.config
import pytest

from overread.domain.card import CT_IMAGE_STORAGE
from overread.domain.study import Instance
from overread.simulate.phantom import ChestPhantom, Grid, chest_phantom
from overread.simulate.study import write_study

pydicom.config.settings.writing_validation_mode = pydicom.config.RAISE

DATA = Path(os.environ.get("OVERREAD_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
ROOT = "1.2.826.0.1.3680043.8.498"


def _outside(family: int, address: Any) -> bool:
    if family not in (socket.AF_INET, socket.AF_INET6):
        return False
    host = str(address[0]).partition("%")[0]
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host not in ("localhost", "")


@pytest.fixture(autouse=True, scope="session")
def _nothing_leaves_this_machine() -> Iterator[None]:
    """No test connects beyond loopback."""
    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex"):
        real = getattr(socket.socket, name)

        def guarded(self: socket.socket, address: Any, *, real: Any = real) -> Any:
            if _outside(self.family, address):
                raise PermissionError(f"a test tried to reach {address}; tests stay on loopback")
            return real(self, address)

        patch.setattr(socket.socket, name, guarded)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def data() -> Path:
    """Real DICOM files that others made; the test is skipped where they are not."""
    if not DATA.is_dir():
        pytest.skip(f"no test data at {DATA}; set OVERREAD_TEST_DATA")
    return DATA


@pytest.fixture(scope="session")
def ct_headers() -> Callable[..., list[Instance]]:
    """``ct_headers(12, spacing=2.5, …)``: headers of one regular CT series, feet to head, without files.

    ``row`` and ``column`` are the direction cosines; ``origin`` is the first slice's position; ``pixel`` the distance
    (between rows, between columns); any other keyword goes into every ``Instance``.
    """

    def make(
        count: int = 10,
        *,
        spacing: float = 2.5,
        pixel: tuple[float, float] = (0.7, 0.9),
        origin: tuple[float, float, float] = (-10.0, -20.0, 100.0),
        row: tuple[float, float, float] = (1.0, 0.0, 0.0),
        column: tuple[float, float, float] = (0.0, 1.0, 0.0),
        series: int = 2,
        **values: Any,
    ) -> list[Instance]:
        normal = np.cross(row, column)
        usual: dict[str, Any] = {
            "modality": "CT",
            "image_type": ("ORIGINAL", "PRIMARY", "AXIAL"),
            "series_number": series,
            "frame_of_reference_uid": f"{ROOT}.4",
            "rows": 6,
            "columns": 5,
        }
        return [
            Instance(
                f"{ROOT}.1.{series}.{k + 1}",
                CT_IMAGE_STORAGE,
                f"{ROOT}.3.{series}",
                f"{ROOT}.2",
                digest=f"digest {series} {k}",
                instance_number=k + 1,
                position=tuple(map(float, np.array(origin) + k * spacing * normal)),
                orientation=(*map(float, row), *map(float, column)),
                pixel_spacing=pixel,
                **{**usual, **values},
            )
            for k in range(count)
        ]

    return make


@pytest.fixture(scope="session")
def tiny_phantom() -> ChestPhantom:
    """A chest of 12 slices, 32 rows and 40 columns."""
    return chest_phantom(11, Grid((12, 32, 40), (10.0, 9.0, 10.0)), nodules=0)


@pytest.fixture(scope="session")
def tiny_ct(tiny_phantom: ChestPhantom, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """``tiny_phantom`` as CT files in slice order, the localizer first."""
    return write_study(tiny_phantom, tmp_path_factory.mktemp("tiny_ct"), seed=11, localizer=True)


@pytest.fixture
def blocks() -> Callable[[], int]:
    """``blocks()``: how many blocks of voxels and answers this process holds open, see ``infer.blocks``."""

    def count() -> int:
        held = 0
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # that by which the folder is listed is gone again
                held += "memfd:overread" in str(descriptor.readlink())
        return held

    return count
