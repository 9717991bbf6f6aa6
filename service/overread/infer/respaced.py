"""MONAI's resampling, computed plane by plane where both grids have the same axes.

That is what Spacing and its inverse ask for. The numbers are the same; a grid of coordinates for every voxel and a copy
of everything in float64 are not made. Anything else goes MONAI's own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import AFFINE_TOL, to_affine_nd
from monai.networks.utils import to_norm_affine
from monai.transforms import TraceableTransform
from monai.transforms.spatial import array as _array
from monai.transforms.spatial import functional as _functional
from monai.utils import TraceKeys
from numpy.typing import NDArray

from overread.infer import sampling

_original = _functional.spatial_resample
TINY = 1e-12


@dataclass(frozen=True)
class Along:
    """A grid beside another with the same axes: for each of its places along x, y, z the coordinate in the other, in
    voxels, in the type that is computed with."""

    coordinates: tuple[NDArray[Any], ...]
    sizes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid that is sampled for."""
        return tuple(len(axis) for axis in self.coordinates)

    def places(self) -> list[sampling.Places]:
        """The neighbours of each place, for linear sampling."""
        return [sampling.places(c, size) for c, size in zip(self.coordinates, self.sizes, strict=True)]


def along(
    xform: torch.Tensor, sizes: Sequence[int], shape: Sequence[int], *, align_corners: bool, kind: torch.dtype
) -> Along | None:
    """Coordinates by ``xform`` (4, 4), index in a grid of ``shape`` → index in one of ``sizes``; None when axes mix.

    They are taken from where MONAI has them, torch's ``affine_grid``, one axis at a time.
    """
    mixed = xform[:3, :3] - torch.diag(torch.diagonal(xform[:3, :3]))
    if bool(mixed.any()) or len(sizes) != 3:
        return None
    theta = to_norm_affine(xform[None].to(kind), tuple(sizes), tuple(shape), align_corners, False)[:, [2, 1, 0, 3]]
    theta = theta[:, :3, [2, 1, 0, 3]]
    found = []
    for axis, (size, length) in enumerate(zip(sizes, shape, strict=True)):
        alone = [1, 1, 1, 1, 1]
        alone[2 + axis] = length
        normal = torch.nn.functional.affine_grid(theta, alone, align_corners=align_corners).reshape(-1, 3)[:, 2 - axis]
        if align_corners and length == 1:
            return None
        whole = ((normal + 1) / 2) * (size - 1) if align_corners else ((normal + 1) * size - 1) / 2
        found.append(whole.numpy())
    return Along(tuple(found), tuple(sizes))


class Unlike(Exception):
    """The image came to its grid by more than an exchange of axes and one resampling along them."""


def back(image: MetaTensor, *, nearest: bool) -> tuple[Along | None, NDArray[np.float64]]:
    """How MONAI's Invertd would bring a prediction on the grid of ``image`` back, but for the order of its axes.

    Returns the way (None where nothing is resampled) and the affine (4, 4), RAS, of the grid that it leads to. Raises
    Unlike.
    """
    done = list(image.applied_operations)
    if image.pending_operations or any(op["class"] not in ("Orientation", "SpatialResample") for op in done):
        raise Unlike
    resampled = [op for op in done if op["class"] == "SpatialResample"]
    if not resampled:
        return None, image.affine.numpy()
    told, size = done[-1]["extra_info"], [int(n) for n in done[-1]["orig_size"]]
    linear = (told.get("mode"), told.get("padding_mode")) == ("bilinear", "border")
    if len(resampled) > 1 or resampled[0] is not done[-1] or not linear:
        raise Unlike
    source = np.asarray(told["src_affine"], np.float64)
    if unchanged(image, told["src_affine"], size):
        return None, source
    found = matrix(image, told["src_affine"], size)
    # Told to take the nearest, MONAI forgets how the corners were aligned.
    corners = told.get("align_corners") is True and not nearest
    kind = getattr(torch, told["dtype"])
    way = found and along(found[0], image.shape[1:], found[1], align_corners=corners, kind=kind)
    if not way or not bool((np.diff(way.coordinates[0]) >= 0).all()):
        raise Unlike
    return way, source


def install() -> None:
    """Let MONAI's transforms resample this way, in this process."""
    _array.spatial_resample = spatial_resample


def spatial_resample(  # noqa: PLR0917 - MONAI's
    img: Any,
    dst_affine: Any,
    spatial_size: Any,
    mode: Any,
    padding_mode: Any,
    align_corners: Any,
    dtype_pt: Any,
    lazy: Any,
    transform_info: Any,
) -> Any:
    """What ``monai.transforms.spatial.functional.spatial_resample`` does, with the same arguments and result."""
    named = (_named(mode), _named(padding_mode))
    plain = named in (("bilinear", "border"), ("nearest", "border")) and dtype_pt in (torch.float32, torch.float64)
    found = None if lazy or not plain else matrix(img, dst_affine, spatial_size)
    corners = False if align_corners in (None, TraceKeys.NONE) else bool(align_corners)
    way = found and along(found[0], img.shape[1:], found[1], align_corners=corners, kind=dtype_pt)
    if not found or not way:
        return _original(
            img, dst_affine, spatial_size, mode, padding_mode, align_corners, dtype_pt, lazy, transform_info
        )
    told = {"dtype": str(dtype_pt)[6:], "mode": named[0], "padding_mode": named[1]}
    told["align_corners"] = align_corners if align_corners is not None else TraceKeys.NONE
    told["src_affine"] = to_affine_nd(3, img.peek_pending_affine()).to(torch.float64)
    size, before = torch.tensor(way.shape), img.peek_pending_shape()
    booked = TraceableTransform.track_transform_meta(
        img, sp_size=size, affine=found[0], extra_info=told, orig_size=before, transform_info=transform_info
    )
    return MetaTensor(sampled(img.as_tensor(), way, nearest=named[0] == "nearest")).copy_meta_from(booked)


def matrix(img: Any, dst_affine: Any, spatial_size: Any) -> tuple[torch.Tensor, tuple[int, ...]] | None:
    """Index in the new grid → index in that of ``img`` (channels, x, y, z), float64, and the new shape; None when MONAI
    would work that out from less, or would leave the image as it is."""
    if not isinstance(img, MetaTensor) or img.ndim != 4 or img.device.type != "cpu" or img.pending_operations:
        return None
    if dst_affine is None or isinstance(spatial_size, int) or spatial_size is None:
        return None
    shape = tuple(int(size) for size in spatial_size)
    source = to_affine_nd(3, img.affine).to(torch.float64)
    wanted = to_affine_nd(3, torch.as_tensor(dst_affine)).to(torch.float64)
    if len(shape) != 3 or min(shape) < 1 or abs(float(torch.det(source))) < TINY:
        return None
    if unchanged(img, wanted, shape):
        return None
    return torch.from_numpy(np.linalg.solve(source.numpy(), wanted.numpy())), shape


def unchanged(img: MetaTensor, dst_affine: torch.Tensor, shape: Sequence[int]) -> bool:
    """Whether MONAI takes the new grid for that of ``img``, and leaves it as it is."""
    source, wanted = img.affine.to(torch.float64), torch.as_tensor(dst_affine, dtype=torch.float64)
    if tuple(shape) != tuple(img.shape[1:]):
        return False
    step = torch.from_numpy(np.linalg.solve(source.numpy(), wanted.numpy()))
    return _close(source, wanted) or _close(step, torch.eye(4, dtype=torch.float64))


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(np.allclose(one.numpy(), other.numpy(), atol=AFFINE_TOL))


def _named(mode: Any) -> str:
    return str(getattr(mode, "value", mode))


def sampled(img: torch.Tensor, way: Along, *, nearest: bool) -> torch.Tensor:
    """``img`` (channels, x, y, z) along ``way``, float32, channel by channel."""
    threads = torch.get_num_threads()
    out = torch.empty((img.shape[0], *way.shape))
    places = [] if nearest else way.places()
    for n, channel in enumerate(img.numpy()):
        into = out[n].numpy()
        if nearest:
            sampling.nearest(channel, way.coordinates, into, threads)
        else:
            sampling.linear(channel, places, into, threads)
    return out
