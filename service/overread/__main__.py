"""``python -m overread`` is the command ``overread``."""

from __future__ import annotations

import sys

from overread.cli import main

sys.exit(main())
