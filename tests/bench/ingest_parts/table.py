"""The measurements side by side, and what they say about the bars that overread set itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from ingest_parts.measure import Measurement
from ingest_parts.sender import NAGLE

OVERREAD, NOT_DURABLE, ORTHANC, STORESCP = "overread", "overread, durability off", "Orthanc", "storescp +B"
HEADINGS = (
    "receiver",
    "inst/s [min–max]",
    "MB/s",
    "× Orthanc",
    "× storescp",
    "CPU ms/inst",
    "× Orthanc",
    "peak RSS MB",
    "p50 / p99 ms",
    "stored",
)
NOTHING = "–"


@dataclass(frozen=True)
class Group:
    """All rounds of one load, sender and number of associations, by receiver in the order of the table."""

    load: str
    associations: int
    sender: str
    rows: dict[str, list[Measurement]]

    def middle(self, receiver: str, value: Callable[[Measurement], float | None]) -> float | None:
        """The median over the rounds that went well; None when none did."""
        values = [value(m) for m in self.rows.get(receiver, ()) if not m.trouble]
        known = [v for v in values if v is not None]
        return median(known) if known else None

    def ratio(self, receiver: str, other: str, value: Callable[[Measurement], float]) -> float | None:
        """The median of one receiver divided by that of another."""
        mine, theirs = self.middle(receiver, value), self.middle(other, value)
        return mine / theirs if mine is not None and theirs else None


def grouped(measurements: Sequence[Measurement], order: Sequence[str]) -> list[Group]:
    """Groups in the order in which they were measured; ``order`` of the receivers' names."""
    groups: dict[tuple[str, int, str], Group] = {}
    for m in measurements:
        key = (m.load, m.associations, m.sender)
        group = groups.setdefault(key, Group(*key, {name: [] for name in order}))
        group.rows[m.receiver].append(m)
    return list(groups.values())


def table(groups: Sequence[Group]) -> str:
    """All groups under one heading, columns aligned."""
    blocks = [(_title(group), [_row(group, name) for name, rounds in group.rows.items() if rounds]) for group in groups]
    whole = [HEADINGS, *(row for _, rows in blocks for row in rows if len(row) == len(HEADINGS))]
    widths = [max(len(row[k]) for row in whole) for k in range(len(HEADINGS))]
    widths[0] = max([widths[0], *(len(row[0]) for _, rows in blocks for row in rows)])
    lines = [_aligned(HEADINGS, widths)]
    for title, rows in blocks:
        lines += ["", title, *(_aligned(row, widths) for row in rows)]
    return "\n".join(lines)


def verdicts(groups: Sequence[Group]) -> list[tuple[str, bool | None]]:
    """Each bar in words, and whether it was reached; None when it was not measured. By CT, if it was sent."""
    usual = [group for group in groups if group.sender != NAGLE]
    loads = {group.load for group in usual}
    said: list[tuple[str, bool | None]] = []
    for group in usual:
        if group.load == "CT" or "CT" not in loads:
            said += _verdicts(group)
    return said


def _verdicts(group: Group) -> list[tuple[str, bool | None]]:
    bars = (
        ("durable ≥ 2.0 × Orthanc", group.ratio(OVERREAD, ORTHANC, lambda m: m.rate), 2.0),
        ("CPU ≤ 0.5 × Orthanc", group.ratio(OVERREAD, ORTHANC, lambda m: m.cpu_ms), -0.5),
        ("durability off ≥ 0.9 × storescp +B", group.ratio(NOT_DURABLE, STORESCP, lambda m: m.rate), 0.9),
    )
    where = f"{group.load}, {_associations(group)}, {group.sender}"
    said: list[tuple[str, bool | None]] = []
    for bar, ratio, least in bars:
        if ratio is None:
            said.append((f"{bar} ({where}): not measured", None))
            continue
        reached = ratio >= least if least > 0 else ratio <= -least
        said.append((f"{bar} ({where}): {ratio:.2f} × {'yes' if reached else 'NO'}", reached))
    return said


def stored(rounds: Sequence[Measurement]) -> str:
    """That all is there, or what is not, in the first round where it was not."""
    harm = next((f"round {n}: {m.harm}" for n, m in enumerate(rounds, 1) if m.harm), "")
    return harm or f"all {rounds[0].instances} identical"


def _row(group: Group, receiver: str) -> Sequence[str]:
    rounds = group.rows[receiver]
    well = [m for m in rounds if not m.trouble]
    trouble = next((m.trouble for m in rounds if m.trouble), "")
    if not well:
        return receiver, trouble + (f" ({stored(rounds)})" if rounds[0].wall_s else "")
    rates = [m.rate for m in well]
    latency = [group.middle(receiver, value) for value in (lambda m: m.p50_ms, lambda m: m.p99_ms)]
    return (
        receiver,
        f"{median(rates):.0f} [{min(rates):.0f}–{max(rates):.0f}]",
        f"{median(m.size_bytes / m.wall_s / 1e6 for m in well):.0f}",
        _times(group.ratio(receiver, ORTHANC, lambda m: m.rate)),
        _times(group.ratio(receiver, STORESCP, lambda m: m.rate)),
        f"{median(m.cpu_ms for m in well):.2f}",
        _times(group.ratio(receiver, ORTHANC, lambda m: m.cpu_ms)),
        f"{median(m.peak_mb for m in well):.0f}",
        " / ".join(f"{value:.2f}" for value in latency if value is not None) or NOTHING,
        stored(rounds) + (f"; {len(rounds) - len(well)} of {len(rounds)} rounds failed: {trouble}" if trouble else ""),
    )


def _title(group: Group) -> str:
    first = next(rounds[0] for rounds in group.rows.values() if rounds)
    each_kb = first.size_bytes / first.instances / 1000
    return f"{group.load}: {first.instances} × {each_kb:.0f} kB · {_associations(group)} · {group.sender}"


def _associations(group: Group) -> str:
    return "1 association" if group.associations == 1 else f"{group.associations} associations"


def _times(ratio: float | None) -> str:
    return NOTHING if ratio is None else f"{ratio:.2f}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    if len(row) < len(widths):
        return "  " + "  ".join((row[0].ljust(widths[0]), *row[1:]))
    numbers = (text.rjust(width) for text, width in zip(row[1:-1], widths[1:-1], strict=True))
    return "  " + "  ".join((row[0].ljust(widths[0]), *numbers, row[-1])).rstrip()
