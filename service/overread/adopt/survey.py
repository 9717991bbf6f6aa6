"""What a bundle would run on this machine, for a person to see before trusting it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from overread.adopt.bundle import Described, nodes, texts

KNOWN = ("monai.", "torch.", "overread.")
MOST = 60


@dataclass(frozen=True)
class Survey:
    """``expressions``: what is evaluated; ``components``: classes and functions that are neither MONAI's nor torch's;
    ``files``: Python files; ``pickles``: files that could only be unpickled, which overread refuses to do."""

    expressions: tuple[str, ...]
    components: tuple[str, ...]
    files: tuple[str, ...]
    pickles: tuple[str, ...]


def survey(bundle: Described) -> Survey:
    """Look through the inference config and the folder."""
    expressions = [text for text in texts(bundle.config) if text.startswith("$")]
    targets = [str(node["_target_"]) for node in nodes(bundle.config) if "_target_" in node]
    foreign = [t for t in targets if "." in t and not t.startswith((*KNOWN, "$"))]
    files = sorted(p.relative_to(bundle.folder).as_posix() for p in bundle.folder.rglob("*.py"))
    pickles = [p for end in ("pkl", "pickle", "joblib") for p in bundle.folder.rglob(f"*.{end}")]
    return Survey(
        tuple(dict.fromkeys(expressions)),
        tuple(dict.fromkeys(foreign)),
        tuple(files),
        tuple(sorted(p.relative_to(bundle.folder).as_posix() for p in pickles)),
    )


def said(found: Survey, config_name: str) -> Iterator[str]:
    """The survey in lines."""
    yield f"{len(found.expressions)} expressions in configs/{config_name}:"
    yield from (f"    {' '.join(e.split())[:160]}" for e in found.expressions[:MOST])
    if len(found.expressions) > MOST:
        yield f"    and {len(found.expressions) - MOST} more"
    for what, names in (
        ("components that are neither MONAI's nor torch's", found.components),
        ("Python files", found.files),
        ("pickles, which are never opened", found.pickles),
    ):
        if names:
            more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
            yield f"{what}: {', '.join(names[:MOST])}{more}"
