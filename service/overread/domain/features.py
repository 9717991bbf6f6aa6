"""Features of a region by name: what each is called, its IBSI code and the kind of its unit.

Names are ``family.feature``. Definitions and codes are those of the Image Biomarker Standardisation Initiative (IBSI 1
reference manual; coding scheme ``IBSI``, PS3.16 Table 8-1 and CIDs 7475–7477, 7467, 7500, 7501). ``gldm`` is what the
IBSI calls the neighbouring grey level dependence matrix (NGLDM). Textures are three-dimensional: matrices of all
directions are merged, distance 1, no difference in level counts as dependence.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from overread.domain.codes import Code

SIZES = ("volume", "long_axis", "short_axis", "longest_diameter")
SUV = "suvbw"


@dataclass(frozen=True)
class _Row:
    name: str
    code: str
    meaning: str
    unit: str = "none"


@dataclass(frozen=True)
class Feature:
    """One feature; ``unit`` is none, intensity, squared (intensity), mm, mm2, mm3 or per_mm."""

    name: str
    code: Code
    unit: str


_ROWS: dict[str, tuple[_Row, ...]] = {
    "shape": (
        _Row("mesh_volume", "RNU0", "Volume of Mesh", "mm3"),
        _Row("voxel_volume", "YEKZ", "Volume from Voxel Summation", "mm3"),
        _Row("surface_area", "C0JK", "Surface Area of Mesh", "mm2"),
        _Row("surface_to_volume_ratio", "2PR5", "Surface to Volume Ratio", "per_mm"),
        _Row("compactness_1", "SKGS", "Compactness 1"),
        _Row("compactness_2", "BQWJ", "Compactness 2"),
        _Row("spherical_disproportion", "KRCK", "Spherical Disproportion"),
        _Row("sphericity", "QCFX", "Sphericity"),
        _Row("asphericity", "25C7", "Asphericity"),
        _Row("center_of_mass_shift", "KLMA", "Centre of Mass Shift", "mm"),
        _Row("maximum_3d_diameter", "L0JK", "Maximum 3D Diameter of a Mesh", "mm"),
        _Row("convex_hull_volume_density", "R3ER", "Volume Density in Convex Hull"),
        _Row("convex_hull_area_density", "7T7F", "Area Density in Convex Hull"),
        _Row("bounding_box_volume_density", "PBX1", "Volume Density in Frame of Reference Axis Aligned Bounding Box"),
        _Row("bounding_box_area_density", "R59B", "Area Density in Frame of Reference Axis Aligned Bounding Box"),
        _Row("major_axis_length", "TDIC", "Major Axis in 3D Length", "mm"),
        _Row("minor_axis_length", "P9VJ", "Minor Axis in 3D Length", "mm"),
        _Row("shortest_axis_length", "7J51", "Least Axis in 3D Length", "mm"),
        _Row("elongation", "Q3CK", "Elongation"),
        _Row("flatness", "N17B", "Flatness"),
        _Row("enclosing_ellipsoid_volume_density", "6BDE", "Volume Density in Approximate Enclosing Ellipsoid"),
        _Row("enclosing_ellipsoid_area_density", "RDD2", "Area Density in Approximate Enclosing Ellipsoid"),
    ),
    "firstorder": (
        _Row("mean", "Q4LE", "Mean", "intensity"),
        _Row("variance", "ECT3", "Variance", "squared"),
        _Row("skewness", "KE2A", "Skewness"),
        _Row("kurtosis", "IPH6", "Kurtosis"),
        _Row("median", "Y12H", "Median", "intensity"),
        _Row("minimum", "1GSF", "Minimum", "intensity"),
        _Row("percentile_10", "QG58", "10th percentile", "intensity"),
        _Row("percentile_90", "8DWT", "90th percentile", "intensity"),
        _Row("maximum", "84IY", "Maximum", "intensity"),
        _Row("interquartile_range", "SALO", "Interquartile range", "intensity"),
        _Row("range", "2OJQ", "Range", "intensity"),
        _Row("mean_absolute_deviation", "4FUA", "Mean absolute deviation", "intensity"),
        _Row("robust_mean_absolute_deviation", "1128", "Robust mean absolute deviation", "intensity"),
        _Row("median_absolute_deviation", "N72L", "Median absolute deviation", "intensity"),
        _Row("coefficient_of_variation", "7TET", "Coefficient of variation"),
        _Row("quartile_coefficient_of_dispersion", "9S40", "Quartile coefficient of dispersion"),
        _Row("energy", "N8CA", "Energy", "squared"),
        _Row("root_mean_square", "5ZWQ", "Root mean square", "intensity"),
    ),
    "glcm": (
        _Row("joint_maximum", "GYBY", "Joint Maximum of GLCM"),
        _Row("joint_average", "60VM", "Joint Average of GLCM"),
        _Row("joint_variance", "UR99", "Joint Variance of GLCM"),
        _Row("joint_entropy", "TU9B", "Joint Entropy of GLCM"),
        _Row("difference_average", "TF7R", "Difference Average of GLCM"),
        _Row("difference_variance", "D3YU", "Difference Variance of GLCM"),
        _Row("difference_entropy", "NTRS", "Difference Entropy of GLCM"),
        _Row("sum_average", "ZGXS", "Sum Average of GLCM"),
        _Row("sum_variance", "OEEB", "Sum Variance of GLCM"),
        _Row("sum_entropy", "P6QZ", "Sum Entropy of GLCM"),
        _Row("angular_second_moment", "8ZQL", "Angular Second Moment of GLCM"),
        _Row("contrast", "ACUI", "Contrast of GLCM"),
        _Row("dissimilarity", "8S9J", "Dissimilarity of GLCM"),
        _Row("inverse_difference", "IB1Z", "Inverse Difference of GLCM"),
        _Row("normalized_inverse_difference", "NDRX", "Normalized Inverse Difference of GLCM"),
        _Row("inverse_difference_moment", "WF0Z", "Inverse Difference Moment of GLCM"),
        _Row("normalized_inverse_difference_moment", "1QCO", "Normalized Inverse Difference Moment of GLCM"),
        _Row("inverse_variance", "E8JP", "Inverse Variance of GLCM"),
        _Row("correlation", "NI2N", "Correlation of GLCM"),
        _Row("autocorrelation", "QWB0", "Autocorrelation of GLCM"),
        _Row("cluster_tendency", "DG8W", "Cluster Tendency of GLCM"),
        _Row("cluster_shade", "7NFM", "Cluster Shade of GLCM"),
        _Row("cluster_prominence", "AE86", "Cluster Prominence of GLCM"),
        _Row("first_measure_of_information_correlation", "R8DG", "First Measure of Information Correlation of GLCM"),
        _Row("second_measure_of_information_correlation", "JN9H", "Second Measure of Information Correlation of GLCM"),
    ),
    "glrlm": (
        _Row("short_runs_emphasis", "22OV", "Short Runs Emphasis"),
        _Row("long_runs_emphasis", "W4KF", "Long Runs Emphasis"),
        _Row("low_gray_level_run_emphasis", "V3SW", "Low Gray Level Run Emphasis"),
        _Row("high_gray_level_run_emphasis", "G3QZ", "High Gray Level Run Emphasis"),
        _Row("short_run_low_gray_level_emphasis", "HTZT", "Short Run Low Gray Level Emphasis"),
        _Row("short_run_high_gray_level_emphasis", "GD3A", "Short Run High Gray Level Emphasis"),
        _Row("long_run_low_gray_level_emphasis", "IVPO", "Long Run Low Gray Level Emphasis"),
        _Row("long_run_high_gray_level_emphasis", "3KUM", "Long Run High Gray Level Emphasis"),
        _Row("gray_level_nonuniformity", "R5YN", "Gray Level Nonuniformity in Runs"),
        _Row("normalized_gray_level_nonuniformity", "OVBL", "Normalized Gray Level Nonuniformity in Runs"),
        _Row("run_length_nonuniformity", "W92Y", "Run Length Nonuniformity"),
        _Row("normalized_run_length_nonuniformity", "IC23", "Normalized Run Length Nonuniformity"),
        _Row("run_percentage", "9ZK5", "Run Percentage"),
        _Row("gray_level_variance", "8CE5", "Gray Level Variance in Runs"),
        _Row("run_length_variance", "SXLW", "Run Length Variance"),
        _Row("run_entropy", "HJ9O", "Run Entropy"),
    ),
    "glszm": (
        _Row("small_zone_emphasis", "5QRC", "Small Zone Emphasis"),
        _Row("large_zone_emphasis", "48P8", "Large Zone Emphasis"),
        _Row("low_gray_level_zone_emphasis", "XMSY", "Low Gray Level Zone Emphasis"),
        _Row("high_gray_level_zone_emphasis", "5GN9", "High Gray Level Zone Emphasis"),
        _Row("small_zone_low_gray_level_emphasis", "5RAI", "Small Zone Low Gray Level Emphasis"),
        _Row("small_zone_high_gray_level_emphasis", "HW1V", "Small Zone High Gray Level Emphasis"),
        _Row("large_zone_low_gray_level_emphasis", "YH51", "Large Zone Low Gray Level Emphasis"),
        _Row("large_zone_high_gray_level_emphasis", "J17V", "Large Zone High Gray Level Emphasis"),
        _Row("gray_level_nonuniformity", "JNSA", "Gray Level Nonuniformity of Size Zone Counts"),
        _Row("normalized_gray_level_nonuniformity", "Y1RO", "Normalized Gray Level Nonuniformity of Size Zone Counts"),
        _Row("zone_size_nonuniformity", "4JP3", "Zone Size Nonuniformity"),
        _Row("normalized_zone_size_nonuniformity", "VB3A", "Normalized Zone Size Nonuniformity"),
        _Row("zone_percentage", "P30P", "Size Zone Percentage"),
        _Row("gray_level_variance", "BYLV", "Gray Level Variance in Size Zones"),
        _Row("zone_size_variance", "3NSA", "Zone Size Variance"),
        _Row("zone_size_entropy", "GU8N", "Zone Size Entropy"),
    ),
    "ngtdm": (
        _Row("coarseness", "QCDE", "Coarseness of NGTDM"),
        _Row("contrast", "65HE", "Contrast of NGTDM"),
        _Row("busyness", "NQ30", "Busyness of NGTDM"),
        _Row("complexity", "HDEZ", "Complexity of NGTDM"),
        _Row("strength", "1X9X", "Strength of NGTDM"),
    ),
    "gldm": (
        _Row("low_dependence_emphasis", "SODN", "Low dependence emphasis"),
        _Row("high_dependence_emphasis", "IMOQ", "High dependence emphasis"),
        _Row("low_gray_level_count_emphasis", "TL9H", "Low grey level count emphasis"),
        _Row("high_gray_level_count_emphasis", "OAE7", "High grey level count emphasis"),
        _Row("low_dependence_low_gray_level_emphasis", "EQ3F", "Low dependence low grey level emphasis"),
        _Row("low_dependence_high_gray_level_emphasis", "JA6D", "Low dependence high grey level emphasis"),
        _Row("high_dependence_low_gray_level_emphasis", "NBZI", "High dependence low grey level emphasis"),
        _Row("high_dependence_high_gray_level_emphasis", "9QMG", "High dependence high grey level emphasis"),
        _Row("gray_level_nonuniformity", "FP8K", "Grey level non-uniformity of NGLDM"),
        _Row("normalized_gray_level_nonuniformity", "5SPA", "Normalized grey level non-uniformity of NGLDM"),
        _Row("dependence_count_nonuniformity", "Z87G", "Dependence count non-uniformity"),
        _Row("normalized_dependence_count_nonuniformity", "OKJI", "Dependence count non-uniformity normalized"),
        _Row("dependence_count_percentage", "6XV8", "Dependence count percentage"),
        _Row("gray_level_variance", "1PFV", "Grey level variance of NGLDM"),
        _Row("dependence_count_variance", "DNX2", "Dependence count variance"),
        _Row("dependence_count_entropy", "FCBV", "Dependence count entropy"),
        _Row("dependence_count_energy", "CAS9", "Dependence count energy"),
    ),
}

FAMILIES: dict[str, tuple[Feature, ...]] = {
    family: tuple(Feature(f"{family}.{r.name}", Code(r.code, "IBSI", r.meaning), r.unit) for r in rows)
    for family, rows in _ROWS.items()
}
FEATURES: dict[str, Feature] = {feature.name: feature for family in FAMILIES.values() for feature in family}


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """Single features, in order and once each, of ``names``: features, whole families, sizes, ``suvbw``.

    Raises ValueError that names the nearest known one when a name is not known.
    """
    found: dict[str, None] = {}
    for name in names:
        if name in FAMILIES:
            found.update(dict.fromkeys(feature.name for feature in FAMILIES[name]))
        elif name in FEATURES or name in SIZES or name == SUV:
            found[name] = None
        else:
            raise ValueError(f"there is no feature {name!r}{_nearest(name)}")
    return tuple(found)


def _nearest(name: str) -> str:
    known = [*FAMILIES, *FEATURES, *SIZES, SUV]
    near = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; families are {', '.join(FAMILIES)}"
