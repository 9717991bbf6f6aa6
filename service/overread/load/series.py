"""Slices in the spool → voxels in the modality's unit on their own grid, or the reason why not."""

from __future__ import annotations

import os
from collections.abc import Sequence

from overread.domain.candidates import Candidate, candidates
from overread.domain.card import Accepts
from overread.domain.errors import Stumbled, Unfit
from overread.domain.geometry import Stack, series_digest
from overread.domain.study import Instance
from overread.domain.volume import Volume
from overread.load.pixels import read_planes
from overread.spool import Spool
from overread.spool.frames import SpoolFrames

ANY = Accepts("")


def load(spool: Spool, instances: Sequence[Instance], accepts: Accepts = ANY, *, digest: str = "") -> Volume:
    """Load one series as ``accepts`` wants it.

    ``digest`` says which of its volumes (phases, echoes, films) was chosen; without one it is the first. Returns a
    volume whose voxels are (slices, rows, columns) int16 where every slope is 1, every intercept whole and all values
    fit, else float32. Raises Unfit when the slices are not one regular stack or a slice cannot be decoded; Stumbled
    when none of the volumes is the one that was chosen.
    """
    stacked = _chosen(spool, instances, accepts, digest)
    root = str(spool.root)
    # Making a Path for each slice would take longer than parsing it.
    return load_files(stacked, tuple(os.path.join(root, i.path) for i in stacked.instances))  # noqa: PTH118


def load_files(stacked: Stack, paths: tuple[str, ...] = ()) -> Volume:
    """Load a stack; its files lie at ``paths``, or at the instances' own. Raises as ``load``."""
    paths = paths or tuple(i.path for i in stacked.instances)
    voxels, unit = read_planes(paths, stacked.instances, stacked.shape, colour=stacked.kind != "volume")
    return Volume(voxels, stacked, paths, unit)


def _chosen(spool: Spool, instances: Sequence[Instance], accepts: Accepts, digest: str) -> Stack:
    images = [i for i in instances if not i.is_localizer]
    if not images:
        raise Unfit("it is a localizer")
    refusals: list[Unfit] = []
    for candidate in candidates(images, accepts.kind, SpoolFrames(spool.absolute)):
        stacked = _stacked(candidate, accepts, refusals)
        if stacked is not None and digest in ("", stacked.digest()):
            return stacked
    if refusals and digest in ("", series_digest(instances)):
        raise refusals[0]
    raise Stumbled("the series has grown since this job was planned; a later revision will supersede it")


def _stacked(candidate: Candidate, accepts: Accepts, refusals: list[Unfit]) -> Stack | None:
    try:
        return candidate.stack(accepts)
    except Unfit as error:
        refusals.append(Unfit(f"{candidate.title}: {error}" if candidate.title else str(error)))
        return None
