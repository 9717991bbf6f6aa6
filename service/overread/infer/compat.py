"""A bundle's config, adapted to memory and to today: files are not written, and what MONAI has changed is followed.

Each change is told in words, for the log.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from monai.bundle.config_item import ComponentLocator

SAVER = re.compile(r"^Save[A-Z]|Saver")
CUDA = re.compile(r"""(['"])cuda(:\d+)?\1""")
RENAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "AddChannel": ("EnsureChannelFirst", {"channel_dim": "no_channel"}),
    "AddChanneld": ("EnsureChannelFirstd", {"channel_dim": "no_channel"}),
    "AsChannelFirst": ("EnsureChannelFirst", {"channel_dim": -1}),
    "AsChannelFirstd": ("EnsureChannelFirstd", {"channel_dim": -1}),
    "SplitChanneld": ("SplitDimd", {}),
}
Node = dict[str, Any]


def adapt(config: Any, device: torch.device) -> list[str]:
    """Change ``config`` in place; returns what was changed, one sentence each."""
    notes: list[str] = []
    for node in list(_nodes(config)):
        for change in (_saver, _renamed, _pretrained, _gone_arguments):
            notes += change(node)
    if device.type == "cpu":
        notes += _without_cuda(config)
    return notes


def nearest_after_argmax(transforms: Any) -> list[str]:
    """A label map that is inverted linearly mixes labels into others; the inverse must take the nearest."""
    decided = False
    for node in transforms if isinstance(transforms, list) else ():
        name = target(node)
        if name in ("AsDiscreted", "AsDiscrete") and (node.get("argmax") or node.get("threshold") is not None):
            decided = True
        if name == "Invertd" and decided and node.get("nearest_interp", True) is not True:
            node["nearest_interp"] = True
            return ["Invertd comes after the labels are decided: it takes the nearest instead of mixing them"]
    return []


def target(node: Any) -> str:
    """The last part of a component's ``_target_``; empty when it is none."""
    return str(node.get("_target_", "")).rsplit(".", 1)[-1] if isinstance(node, dict) else ""


def _nodes(value: Any) -> Iterator[Node]:
    """All tables in a config, outermost first."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _nodes(child)


def _saver(node: Node) -> list[str]:
    # Results leave as DICOM, and a saver wants a file format's library that nothing else here needs.
    if SAVER.search(target(node)):
        node["_disabled_"] = True
    return []


def _renamed(node: Node) -> list[str]:
    name = target(node)
    if name not in RENAMED or not _monais(node) or _found(name) is not None:
        return []
    new, values = RENAMED[name]
    node["_target_"] = new
    node.update(values)
    return [f"{name} is gone from MONAI; {new} takes its place"]


def _pretrained(node: Node) -> list[str]:
    if node.get("pretrained") is not True:
        return []
    node["pretrained"] = False
    return ["pretrained: true would download weights that the bundle's own replace; it is off"]


def _gone_arguments(node: Node) -> list[str]:
    component = _found(target(node)) if _monais(node) else None
    if component is None:
        return []
    try:
        known = inspect.signature(component).parameters
    except (TypeError, ValueError):
        return []
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        return []
    gone = [key for key in node if key not in known and not key.startswith("_")]
    for key in gone:
        del node[key]
    return [f"{target(node)} has no argument {key!r} in this MONAI; it is left out" for key in gone]


def _monais(node: Node) -> bool:
    """Whether a component is named as MONAI's own: without a module, or with one of MONAI."""
    named = str(node.get("_target_", ""))
    return bool(named) and not named.startswith("$") and ("." not in named or named.startswith("monai."))


def _without_cuda(config: Any) -> list[str]:
    changed = False
    for node in [*_nodes(config)]:
        for key, value in node.items():
            if isinstance(value, str) and "is_available" not in value:
                node[key] = _on_cpu(value)
                changed = changed or node[key] != value
            elif isinstance(value, list):
                node[key] = [_on_cpu(v) if isinstance(v, str) and "is_available" not in v else v for v in value]
                changed = changed or node[key] != value
    return ["it asks for a GPU that is not there; it runs on the CPU"] if changed else []


def _on_cpu(text: str) -> str:
    if re.fullmatch(r"cuda(:\d+)?", text):
        return "cpu"
    return CUDA.sub(r"\1cpu\1", text) if text.startswith("$") else text


_locator: ComponentLocator | None = None


def _found(name: str) -> Callable[..., Any] | None:
    """The component of MONAI by this name, as a bundle's config would find it."""
    global _locator  # noqa: PLW0603 - building its table takes a second
    _locator = _locator or ComponentLocator()
    module = _locator.get_component_module_name(name)
    module = module[0] if isinstance(module, list) else module
    if module is None:
        return None
    found: Callable[..., Any] | None = getattr(sys.modules.get(module), name, None)
    return found
