"""The command ``overread``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from overread.cli import accept, deliveries, models, quarantine, questions, service, simulate
from overread.domain.errors import OverreadError

DEFAULT_CONFIGS = (Path("overread.toml"), Path("/etc/overread/overread.toml"))
PARTS = (service, questions, deliveries, models, quarantine, accept, simulate)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 well, 1 something is wrong, 2 it was called wrongly."""
    options = _parser().parse_args(arguments)
    try:
        options.config = _config(options.config)
        code: int = options.run(options)
    except OverreadError as error:
        print(f"overread: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    return code


def _config(given: Path | None) -> Path | None:
    return given or next((path for path in DEFAULT_CONFIGS if path.is_file()), None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "overread",
        description="A background second reader for a hospital's PACS: studies come in by DICOM, AI results go back as "
        "SEG and SR.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        help="settings file (default: overread.toml, else /etc/overread/overread.toml, else built-in defaults)",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for part in PARTS:
        part.add(commands)
    return parser
