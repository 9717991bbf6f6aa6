"""The receiver that one writes in ten minutes with pynetdicom: each instance into a file, nothing else.

python stock_pynetdicom.py PORT FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt


def keep(event: evt.Event, folder: Path) -> int:
    """Write the data set as it came, file meta before it."""
    (folder / f"{event.request.AffectedSOPInstanceUID}.dcm").write_bytes(event.encoded_dataset())
    return 0x0000


def main() -> None:
    """Serve until killed."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    application = AE("STOCK")
    application.supported_contexts = AllStoragePresentationContexts
    application.maximum_pdu_size = 131072
    application.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, keep, [folder])])


if __name__ == "__main__":
    main()
