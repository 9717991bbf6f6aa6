"""Features of a region by the definitions of the Image Biomarker Standardisation Initiative, computed by MIRP.

MIRP is checked against the IBSI's reference values (``tests/unit/measure/test_ibsi.py`` says which). It is an optional
extra, ``overread[radiomics]``, and imported only when a card asks for a feature.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overread.domain.card import Label, Texture
from overread.domain.codes import HOUNSFIELD, MILLIMETER, NO_UNITS, Code
from overread.domain.errors import CardError
from overread.domain.features import FAMILIES, FEATURES, expand
from overread.domain.findings import Measurement
from overread.domain.volume import Volume

UNITS = {
    "none": NO_UNITS,
    "mm": MILLIMETER,
    "mm2": Code("mm2", "UCUM", "square millimeter"),
    "mm3": Code("mm3", "UCUM", "cubic millimeter"),
    "per_mm": Code("/mm", "UCUM", "per millimeter"),
}
SQUARE_HOUNSFIELD = Code("[hnsf'U]2", "UCUM", "square Hounsfield unit")

# MIRP's families, and its columns in the order of ``domain.features.FAMILIES``.
_FAMILIES = {
    "shape": "morphological",
    "firstorder": "statistics",
    "glcm": "glcm",
    "glrlm": "glrlm",
    "glszm": "glszm",
    "ngtdm": "ngtdm",
    "gldm": "ngldm",
}
_COLUMNS = {
    "shape": "morph_ volume vol_approx area_mesh av comp_1 comp_2 sph_dispr sphericity asphericity com diam "
    "vol_dens_conv_hull area_dens_conv_hull vol_dens_aabb area_dens_aabb pca_maj_axis pca_min_axis pca_least_axis "
    "pca_elongation pca_flatness vol_dens_aee area_dens_aee",
    "firstorder": "stat_ mean var skew kurt median min p10 p90 max iqr range mad rmad medad cov qcod energy rms",
    "glcm": "cm_ joint_max joint_avg joint_var joint_entr diff_avg diff_var diff_entr sum_avg sum_var sum_entr energy "
    "contrast dissimilarity inv_diff inv_diff_norm inv_diff_mom inv_diff_mom_norm inv_var corr auto_corr clust_tend "
    "clust_shade clust_prom info_corr1 info_corr2",
    "glrlm": "rlm_ sre lre lgre hgre srlge srhge lrlge lrhge glnu glnu_norm rlnu rlnu_norm r_perc gl_var rl_var "
    "rl_entr",
    "glszm": "szm_ sze lze lgze hgze szlge szhge lzlge lzhge glnu glnu_norm zsnu zsnu_norm z_perc gl_var zs_var "
    "zs_entr",
    "ngtdm": "ngt_ coarseness contrast busyness complexity strength",
    "gldm": "ngl_ lde hde lgce hgce ldlge ldhge hdlge hdhge glnu glnu_norm dcnu dcnu_norm dc_perc gl_var dc_var "
    "dc_entr dc_energy",
}
_TAILS = {"glcm": "_d1_3d_v_mrg", "glrlm": "_3d_v_mrg", "glszm": "_3d", "ngtdm": "_3d", "gldm": "_d1_a0.0_3d"}
_alone = Lock()


def measure(volume: Volume, mask: NDArray[np.bool_], label: Label) -> Sequence[Measurement]:
    """The features that the label asks for by name, over ``mask`` (slices, rows, columns).

    A feature that is not defined for the region (a texture of one voxel) is left out. Raises CardError when MIRP is not
    installed.
    """
    wanted = [name for name in expand(label.features) if name in FEATURES]
    if not wanted:
        return ()
    numbers = compute(volume.voxels, mask, volume.stack.spacing_mm, wanted, label.texture)
    intensity, squared = _intensity_units(volume)
    units = {**UNITS, "intensity": intensity, "squared": squared}
    found = [FEATURES[name] for name in wanted if math.isfinite(numbers[name])]
    return tuple(Measurement(f.code, float(f"{numbers[f.name]:.6g}"), units[f.unit]) for f in found)


def compute(
    voxels: NDArray[Any],
    mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    names: Sequence[str],
    texture: Texture,
) -> Mapping[str, float]:
    """Features ``names`` (keys of ``FEATURES``) over ``mask`` of ``voxels``, both (slices, rows, columns).

    ``spacing_mm`` along the same axes. Lengths, areas and volumes in mm; NaN where a feature is not defined.
    """
    families = [family for family in FAMILIES if any(name.startswith(f"{family}.") for name in names)]
    row = _extract(np.asarray(voxels, np.float32), mask, spacing_mm, _settings(families, texture))
    columns = {name: column for family in families for name, column in _columns(family, row)}
    return {name: float(row[columns[name]]) if name in columns else math.nan for name in names}


def _settings(families: Sequence[str], texture: Texture) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "base_feature_families": [_FAMILIES[family] for family in families],
        "base_discretisation_method": "fixed_bin_size" if texture.bin_width > 0 else "fixed_bin_number",
        "base_discretisation_n_bins": texture.bins,
        "glcm_spatial_method": "3d_volume_merge",
        "glrlm_spatial_method": "3d_volume_merge",
        "glszm_spatial_method": "3d",
        "ngtdm_spatial_method": "3d",
        "ngldm_spatial_method": "3d",
    }
    if texture.bin_width > 0:
        settings["base_discretisation_bin_width"] = texture.bin_width
    if texture.range:
        settings["resegmentation_intensity_range"] = list(texture.range)
    if texture.spacing_mm > 0:
        settings["new_spacing"] = texture.spacing_mm
    return settings


def _extract(
    voxels: NDArray[np.float32], mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float], settings: Any
) -> Mapping[str, Any]:
    try:
        import mirp
        from mirp._data_import.numpy_file import ImageNumpyFile, MaskNumpyFile
    except ImportError:
        raise CardError("the card asks for radiomics features; pip install 'overread[radiomics]'") from None
    # MIRP's mesh needs background around the region, and its public arrays have no way to say their spacing.
    place = {"image_spacing": spacing_mm, "image_origin": (0.0, 0.0, 0.0), "image_orientation": np.eye(3)}
    padded, region = np.pad(voxels, 2, mode="edge"), np.pad(mask.astype(np.int16), 2)
    image = ImageNumpyFile(image_data=padded, image_dimensions=padded.shape, **place)
    roi = MaskNumpyFile(image_data=region, image_dimensions=padded.shape, **place)
    with _alone, _quiet():
        tables = mirp.extract_features(image=image, mask=roi, **settings)
    row: Mapping[str, Any] = tables[0].iloc[0] if tables and tables[0] is not None and len(tables[0]) else {}
    return row


class _quiet:
    """MIRP sets up the root logger where nobody has, and warns of regions that have no texture."""

    def __enter__(self) -> None:
        import warnings

        self._handler = logging.NullHandler()
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")
        root = logging.getLogger()
        self._level = root.level
        root.addHandler(self._handler)

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.setLevel(self._level)
        self._warnings.__exit__(None, None, None)


def _columns(family: str, row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(our name, MIRP's column) of a family; texture columns end in the discretisation."""
    prefix, *names = _COLUMNS[family].split()
    pairs = zip(FAMILIES[family], names, strict=True)
    if family not in _TAILS:
        return [(feature.name, prefix + name) for feature, name in pairs if prefix + name in row]
    starts = {f"{prefix}{name}{_TAILS[family]}_f": feature.name for feature, name in pairs}
    return [(ours, str(c)) for start, ours in starts.items() for c in row.keys() if str(c).startswith(start)]  # noqa: SIM118


def _intensity_units(volume: Volume) -> tuple[Code, Code]:
    is_ct = volume.stack.instances[0].modality == "CT"
    return (HOUNSFIELD, SQUARE_HOUNSFIELD) if is_ct else (NO_UNITS, NO_UNITS)
