"""A disk that is full, or nearly: everybody is told to try later, nothing is half kept, and room makes it go on."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Callable, Iterator

import pytest
from house import Service, wait_for
from material import Made, kept, make, new_uid, require_kept
from mounts import SmallDisk, in_a_namespace, small_disk
from wire import Turned, Wire, associated

OK, OUT_OF_RESOURCES = 0x0000, 0xA700
CONGESTED = (2, 3, 1)  # rejected transient, by the presentation layer, temporary congestion (PS3.8 Table 9-21)
SLICE_BYTES = 512 * 1024
Make = Callable[..., Service]


@contextlib.contextmanager
def on_a_small_disk(service: Make, size_mb: int, min_free_mb: int) -> Iterator[tuple[Service, SmallDisk]]:
    """A listener whose data folder is a small disk."""
    house = service(role="listen", receive={"min_free_mb": min_free_mb})
    with small_disk(house.data, size_mb) as disk:
        try:
            yield house.start(), disk
        finally:
            house.end()


def metric(house: Service, name: str) -> float:
    """A number from /metrics; ``name`` with its labels as they stand there."""
    status, text = house.page("listen", "metrics")
    assert status == 200
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, f"no metric {name}"
    return float(found[1])


def refused_stores(house: Service) -> float:
    return metric(house, 'overread_instances_refused_total{status="0xA700"}')


def turned_away(house: Service) -> float:
    return metric(house, 'overread_associations_refused_total{reason="storage-full"}')


def test_a_disk_filled_to_the_last_byte_refuses_keeps_no_parts_and_recovers_by_itself(
    service: Make, request: pytest.FixtureRequest
) -> None:
    """24 MB free, no high-water mark: large images until they fail, then smaller ones, then there is room."""
    if in_a_namespace(request):
        return
    rng = random.Random(24)
    study = new_uid(rng)
    acknowledged: dict[str, bytes] = {}
    with on_a_small_disk(service, 64, 0) as (house, disk), associated(house.port) as wire:
        disk.fill(leave_mb=24)
        waiting = [_fill(wire, acknowledged, rng, size, study) for size in (SLICE_BYTES, 20_000, 3_000)]
        _nothing_but_whole(house, acknowledged)
        assert len(acknowledged) > 30
        disk.relieve()
        for made in waiting:  # on the association that was refused
            assert wire.store(made.uid, made.data) == OK
            acknowledged[made.uid] = made.data
        with associated(house.port) as another:
            made = make(rng, SLICE_BYTES, study)
            assert another.store(made.uid, made.data) == OK
            acknowledged[made.uid] = made.data
        _nothing_but_whole(house, acknowledged)
        wait_for(
            lambda: _in_the_ledger(house) == acknowledged.keys(), 30, lambda: f"the ledger to follow {house.tail()}"
        )
        wait_for(lambda: house.page("listen", "readyz")[0] == 200, 15, "being ready again")


def _fill(wire: Wire, acknowledged: dict[str, bytes], rng: random.Random, size: int, study: str) -> Made:
    """Send images until three were refused in a row; returns one that was refused."""
    refused = 0
    for _ in range(400):
        made = make(rng, size, study)
        status = wire.store(made.uid, made.data)
        assert status in (OK, OUT_OF_RESOURCES), f"0x{status:04X}"
        if status == OK:
            acknowledged[made.uid] = made.data
            refused = 0
        else:
            refused += 1
        if refused == 3:
            return made
    raise AssertionError(f"400 images of {size} bytes did not fill the disk")


def _nothing_but_whole(house: Service, acknowledged: dict[str, bytes]) -> None:
    spool = house.data / "spool"
    require_kept(spool, acknowledged)
    assert kept(spool).keys() == acknowledged.keys()
    assert not list((spool / "incoming").iterdir())
    assert not list((spool / "quarantine").iterdir())


def _in_the_ledger(house: Service) -> set[str]:
    return {uid for (uid,) in house.rows("SELECT sop_instance_uid FROM instance")}


def test_a_disk_above_the_high_water_mark_refuses_until_there_is_room(
    service: Make, request: pytest.FixtureRequest
) -> None:
    """New associations are told to come later, C-STOREs on open ones too; /readyz and /metrics say what is wrong."""
    if in_a_namespace(request):
        return
    rng = random.Random(96)
    acknowledged: dict[str, bytes] = {}
    with on_a_small_disk(service, 96, 32) as (house, disk), associated(house.port) as wire:
        _until(wire, acknowledged, rng, OK)
        free = metric(house, "overread_spool_free_bytes")
        disk.fill(leave_mb=16)
        refused = _until(wire, acknowledged, rng, OUT_OF_RESOURCES)
        assert wire.echo() == OK
        _is_turned_away(house)
        wait_for(lambda: house.page("listen", "readyz")[0] == 503, 15, "/readyz to say so")
        assert "spool" in house.page("listen", "readyz")[1]
        assert metric(house, "overread_spool_free_bytes") < free - 32e6
        wait_for(lambda: refused_stores(house) >= 1 and turned_away(house) >= 1, 5, "both refusals to be counted")
        disk.relieve()
        wait_for(lambda: wire.store(refused.uid, refused.data) == OK, 15, "the refused image to be taken")
        acknowledged[refused.uid] = refused.data
        with associated(house.port) as another:
            assert another.echo() == OK
        wait_for(lambda: house.page("listen", "readyz")[0] == 200, 15, "being ready again")
        _nothing_but_whole(house, acknowledged)


def _until(wire: Wire, acknowledged: dict[str, bytes], rng: random.Random, wanted: int) -> Made:
    """Send images until one is answered so: the free space may be asked for only now and then."""

    def answered() -> Made | None:
        made = make(rng, 50_000)
        status = wire.store(made.uid, made.data)
        assert status in (OK, wanted), f"0x{status:04X}"
        if status == OK:
            acknowledged[made.uid] = made.data
        return made if status == wanted else None

    found: Made = wait_for(answered, 15, f"0x{wanted:04X}")
    return found


def _is_turned_away(house: Service) -> None:
    with pytest.raises(Turned) as turned, associated(house.port):
        pass
    assert turned.value.answer == CONGESTED
