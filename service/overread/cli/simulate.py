"""overread simulate: parts of a hospital."""

from __future__ import annotations

import argparse
from pathlib import Path

from overread.cli.command import Commands, command


def add(commands: Commands) -> None:
    simulate = command(commands, "simulate", _scanner, "play a part of a hospital: scanner, pacs or phantom")
    parts = simulate.add_subparsers(title="parts", required=True, metavar="PART")
    scanner = command(parts, "scanner", _scanner, "send DICOM files, or a generated chest CT, by C-STORE")
    scanner.add_argument("folder", type=Path, nargs="?", help="folder of DICOM files (default: a generated chest CT)")
    scanner.add_argument("--seed", type=int, default=2026, help="which generated patient (default: %(default)s)")
    scanner.add_argument("--to", default="OVERREAD@127.0.0.1:11112", help="AE@HOST:PORT (default: %(default)s)")
    scanner.add_argument("--ae-title", default="SCANNER", help="calling AE title (default: %(default)s)")
    pacs = command(parts, "pacs", _pacs, "be a PACS, which misbehaves on request")
    pacs.add_argument("folder", type=Path, help="where it keeps what it gets")
    pacs.add_argument("--ae-title", default="PACS", help="AE title (default: %(default)s)")
    pacs.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    pacs.add_argument("--port", type=int, default=11113, help="port (default: %(default)s)")
    pacs.add_argument("--web-port", type=int, default=8043, help="port of DICOMweb and /faults (default: %(default)s)")
    pacs.add_argument("--script", type=Path, help="TOML file with tables [[fault]]: what goes wrong, and when")
    pacs.add_argument(
        "--peer", action="append", default=[], metavar="AE@HOST:PORT", help="whom it can call: C-MOVE, commitment"
    )
    phantom = command(parts, "phantom", _phantom, "write a generated chest CT with its truth into a folder")
    phantom.add_argument("folder", type=Path)
    phantom.add_argument("--seed", type=int, default=2026, help="which generated patient (default: %(default)s)")


def _scanner(options: argparse.Namespace) -> int:
    from overread.simulate.bench import scan

    return scan(options.folder, options.seed, options.to, options.ae_title)


def _pacs(options: argparse.Namespace) -> int:
    from overread.simulate.bench import peer_of, serve_pacs
    from overread.simulate.mischief import read_script
    from overread.simulate.pacs import Pacs

    peers = {peer.ae_title: peer for peer in map(peer_of, options.peer)}
    pacs = Pacs(options.folder, options.ae_title, options.host, options.port, peers=peers)
    pacs.mischief.add(*(read_script(options.script) if options.script else ()))
    return serve_pacs(pacs, options.web_port)


def _phantom(options: argparse.Namespace) -> int:
    from overread.simulate.bench import write_phantom

    files = write_phantom(options.folder, options.seed)
    print(f"{len(files)} images and their truth in {options.folder}")
    return 0
