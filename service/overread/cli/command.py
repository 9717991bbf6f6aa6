"""What the parts of the command line share: how a command is added, and how its settings are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

from overread.settings import Settings, read_settings

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run = Callable[[argparse.Namespace], int]


def command(commands: Commands, name: str, run: Run, text: str) -> argparse.ArgumentParser:
    """Add a command that ``run`` carries out; ``text`` is its help. ``run`` returns the exit code."""
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def settings(options: argparse.Namespace) -> Settings:
    """The settings that the command was told to use."""
    return read_settings(options.config)
