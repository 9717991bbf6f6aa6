"""What a model's process wrote before its end, cut down to what helps: its own words, the error, the stack's top."""

from __future__ import annotations

FATAL = "Fatal Python error"
NO_HELP = ("Extension modules:", "Fontconfig error:")
OWN, FRAMES, TOLD = 500, 8, 1500  # characters of its own, places of the stack, and characters in all


def helpful(text: str) -> str:
    """The lines that tell why, the last that it wrote itself first."""
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith(NO_HELP)]
    fatal = next((n for n, line in enumerate(lines) if line.startswith(FATAL)), None)
    if fatal is None:
        return "\n".join(lines)[-TOLD:]
    own = "\n".join(lines[:fatal])[-OWN:]
    stack = [line for line in lines[fatal + 1 :] if line.lstrip().startswith("File ")]
    return "\n".join([own, lines[fatal], *stack[:FRAMES]]).strip()[: OWN + TOLD]
