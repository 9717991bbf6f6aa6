"""Would what ``[schedule]`` says work on this machine, with the models that are installed?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from overread.domain.card import Card
from overread.settings import Settings

MB = 1 << 20
TORCH = frozenset({"monai-bundle", "torchscript", "torch-export", "nnunet", "stages"})
LEAST_OF_TORCH_MB, LEAST_MB = 600, 100  # of Python with torch and a small network; of Python alone
GPUS = ("/proc/driver/nvidia/gpus", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA's, AMD's, and of WSL


def faults(settings: Settings, cards: Sequence[Card]) -> Iterator[str]:
    """One sentence for each setting that cannot work, with the remedy."""
    yield from _executor(settings)
    yield from _devices(settings, cards)
    if settings.schedule.executor == "local":
        yield from _memory(settings, cards)


def budget_mb(settings: Settings) -> int:
    """What all models together may hold; 0 when nobody knows what this machine has."""
    from overread.infer.room import SHARE_OF_MACHINE, machine_bytes

    return int(settings.schedule.memory_gb * 1024) or int(machine_bytes() * SHARE_OF_MACHINE / MB)


def _executor(settings: Settings) -> Iterator[str]:
    if settings.schedule.executor != "ray":
        return
    if not settings.ledger.startswith("postgresql"):
        yield 'executor "ray" needs PostgreSQL: every node reads the ledger; set `ledger`, or executor = "local"'
    if find_spec("ray") is None:
        yield "executor is \"ray\", and Ray is not installed: pip install 'overread[ray]'"


def _devices(settings: Settings, cards: Sequence[Card]) -> Iterator[str]:
    if settings.schedule.executor != "local" or any(Path(path).exists() for path in GPUS):
        return
    asked = {"schedule.device": settings.schedule.device}
    asked |= {f"runtime.device of the model {card.name}": card.runtime.device for card in cards}
    for where, device in asked.items():
        if device.startswith("cuda"):
            yield f'{where} is "{device}", and this machine shows no GPU; set it to "auto" or "cpu"'


def _memory(settings: Settings, cards: Sequence[Card]) -> Iterator[str]:
    budget = budget_mb(settings)
    if not budget:
        return
    limit = f"schedule.memory_gb gives {budget} MB to all models together"
    if not settings.schedule.memory_gb:
        limit = f"schedule.memory_gb is 0: all models together get {budget} MB, 80 % of this machine's memory"
    needs = {card.name: _need(settings, card) for card in cards}
    for name, (most, why) in needs.items():
        if most > budget:
            yield f"{limit}, and {name} {why}: each of its jobs would fail; give it more"
    slots, least = settings.schedule.slots, min((most for most, _ in needs.values()), default=0)
    if least and slots > 1 and slots * least > budget:
        room = max(1, budget // least)
        yield f"{limit}, which is room for {room} at the same time: set schedule.slots to {room}, not {slots}"


def _need(settings: Settings, card: Card) -> tuple[int, str]:
    """The least that one process takes in MB, and how that is known."""
    from overread.infer.footprints import Footprints

    known = Footprints(settings.data_path / "workers" / "footprints.json").known(card, "cpu").host_bytes // MB
    if known:
        return known, f"took {known} MB so far"
    least = LEAST_OF_TORCH_MB if card.engine in TORCH else LEAST_MB
    return least, f"will take {least} MB at least"
