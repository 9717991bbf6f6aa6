"""Every radiomics feature that a card may ask for, against the reference values of the IBSI's digital phantom.

Values of the IBSI 1 reference manual (3D, directions merged), all of at least moderate consensus.
"""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.sr import _concepts_dict

from overread.domain.card import Texture
from overread.domain.features import FAMILIES, FEATURES
from overread.measure.diameter import longest_mm

PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ],
    np.float32,
)
SPACING_MM = (2.0, 2.0, 2.0)
TOLERANCES = {
    "shape.mesh_volume": 4,
    "shape.voxel_volume": 4,
    "shape.surface_area": 3,
    "shape.surface_to_volume_ratio": 0.004,
    "shape.compactness_1": 0.0003,
    "shape.compactness_2": 0.004,
    "shape.spherical_disproportion": 0.01,
    "shape.sphericity": 0.005,
    "shape.asphericity": 0.001,
    "shape.center_of_mass_shift": 0.004,
    "shape.maximum_3d_diameter": 0.1,
    "shape.convex_hull_volume_density": 0.006,
    "shape.convex_hull_area_density": 0.01,
    "shape.bounding_box_volume_density": 0.005,
    "shape.bounding_box_area_density": 0.005,
    "shape.major_axis_length": 0.1,
    "shape.minor_axis_length": 0.06,
    "shape.shortest_axis_length": 0.05,
    "shape.elongation": 0.005,
    "shape.flatness": 0.005,
    "shape.enclosing_ellipsoid_volume_density": 0.01,
    "shape.enclosing_ellipsoid_area_density": 0.01,
}
REFERENCE = {
    "shape.mesh_volume": 556,
    "shape.voxel_volume": 592,
    "shape.surface_area": 388,
    "shape.surface_to_volume_ratio": 0.698,
    "shape.compactness_1": 0.0411,
    "shape.compactness_2": 0.599,
    "shape.spherical_disproportion": 1.19,
    "shape.sphericity": 0.843,
    "shape.asphericity": 0.186,
    "shape.center_of_mass_shift": 0.672,
    "shape.maximum_3d_diameter": 13.1,
    "shape.convex_hull_volume_density": 0.961,
    "shape.convex_hull_area_density": 1.03,
    "shape.bounding_box_volume_density": 0.869,
    "shape.bounding_box_area_density": 0.866,
    "shape.major_axis_length": 11.4,
    "shape.minor_axis_length": 9.31,
    "shape.shortest_axis_length": 8.54,
    "shape.elongation": 0.816,
    "shape.flatness": 0.749,
    "shape.enclosing_ellipsoid_volume_density": 1.17,
    "shape.enclosing_ellipsoid_area_density": 1.36,
    "firstorder.mean": 2.15,
    "firstorder.variance": 3.05,
    "firstorder.skewness": 1.08,
    "firstorder.kurtosis": -0.355,
    "firstorder.median": 1,
    "firstorder.minimum": 1,
    "firstorder.percentile_10": 1,
    "firstorder.percentile_90": 4,
    "firstorder.maximum": 6,
    "firstorder.interquartile_range": 3,
    "firstorder.range": 5,
    "firstorder.mean_absolute_deviation": 1.55,
    "firstorder.robust_mean_absolute_deviation": 1.11,
    "firstorder.median_absolute_deviation": 1.15,
    "firstorder.coefficient_of_variation": 0.812,
    "firstorder.quartile_coefficient_of_dispersion": 0.6,
    "firstorder.energy": 567,
    "firstorder.root_mean_square": 2.77,
    "glcm.joint_maximum": 0.509,
    "glcm.joint_average": 2.15,
    "glcm.joint_variance": 3.13,
    "glcm.joint_entropy": 2.57,
    "glcm.difference_average": 1.38,
    "glcm.difference_variance": 3.21,
    "glcm.difference_entropy": 1.64,
    "glcm.sum_average": 4.3,
    "glcm.sum_variance": 7.41,
    "glcm.sum_entropy": 2.11,
    "glcm.angular_second_moment": 0.291,
    "glcm.contrast": 5.12,
    "glcm.dissimilarity": 1.38,
    "glcm.inverse_difference": 0.688,
    "glcm.normalized_inverse_difference": 0.856,
    "glcm.inverse_difference_moment": 0.631,
    "glcm.normalized_inverse_difference_moment": 0.902,
    "glcm.inverse_variance": 0.0574,
    "glcm.correlation": 0.183,
    "glcm.autocorrelation": 5.19,
    "glcm.cluster_tendency": 7.41,
    "glcm.cluster_shade": 17.4,
    "glcm.cluster_prominence": 147,
    "glcm.first_measure_of_information_correlation": -0.0288,
    "glcm.second_measure_of_information_correlation": 0.269,
    "glrlm.short_runs_emphasis": 0.729,
    "glrlm.long_runs_emphasis": 2.76,
    "glrlm.low_gray_level_run_emphasis": 0.607,
    "glrlm.high_gray_level_run_emphasis": 9.64,
    "glrlm.short_run_low_gray_level_emphasis": 0.372,
    "glrlm.short_run_high_gray_level_emphasis": 8.67,
    "glrlm.long_run_low_gray_level_emphasis": 2.16,
    "glrlm.long_run_high_gray_level_emphasis": 15.6,
    "glrlm.gray_level_nonuniformity": 281,
    "glrlm.normalized_gray_level_nonuniformity": 0.43,
    "glrlm.run_length_nonuniformity": 328,
    "glrlm.normalized_run_length_nonuniformity": 0.501,
    "glrlm.run_percentage": 0.68,
    "glrlm.gray_level_variance": 3.48,
    "glrlm.run_length_variance": 0.598,
    "glrlm.run_entropy": 2.62,
    "glszm.small_zone_emphasis": 0.255,
    "glszm.large_zone_emphasis": 550,
    "glszm.low_gray_level_zone_emphasis": 0.253,
    "glszm.high_gray_level_zone_emphasis": 15.6,
    "glszm.small_zone_low_gray_level_emphasis": 0.0256,
    "glszm.small_zone_high_gray_level_emphasis": 2.76,
    "glszm.large_zone_low_gray_level_emphasis": 503,
    "glszm.large_zone_high_gray_level_emphasis": 1490,
    "glszm.gray_level_nonuniformity": 1.4,
    "glszm.normalized_gray_level_nonuniformity": 0.28,
    "glszm.zone_size_nonuniformity": 1,
    "glszm.normalized_zone_size_nonuniformity": 0.2,
    "glszm.zone_percentage": 0.0676,
    "glszm.gray_level_variance": 2.64,
    "glszm.zone_size_variance": 331,
    "glszm.zone_size_entropy": 2.32,
    "ngtdm.coarseness": 0.0296,
    "ngtdm.contrast": 0.584,
    "ngtdm.busyness": 6.54,
    "ngtdm.complexity": 13.5,
    "ngtdm.strength": 0.763,
    "gldm.low_dependence_emphasis": 0.045,
    "gldm.high_dependence_emphasis": 109,
    "gldm.low_gray_level_count_emphasis": 0.693,
    "gldm.high_gray_level_count_emphasis": 7.66,
    "gldm.low_dependence_low_gray_level_emphasis": 0.00963,
    "gldm.low_dependence_high_gray_level_emphasis": 0.736,
    "gldm.high_dependence_low_gray_level_emphasis": 102,
    "gldm.high_dependence_high_gray_level_emphasis": 235,
    "gldm.gray_level_nonuniformity": 37.9,
    "gldm.normalized_gray_level_nonuniformity": 0.512,
    "gldm.dependence_count_nonuniformity": 4.86,
    "gldm.normalized_dependence_count_nonuniformity": 0.0657,
    "gldm.dependence_count_percentage": 1,
    "gldm.gray_level_variance": 3.05,
    "gldm.dependence_count_variance": 22.1,
    "gldm.dependence_count_entropy": 4.4,
    "gldm.dependence_count_energy": 0.0533,
}


@pytest.fixture(scope="module")
def numbers() -> dict[str, float]:
    pytest.importorskip("mirp", reason="MIRP is not installed (pip install 'overread[radiomics]')")
    from overread.measure.radiomics import compute

    return dict(compute(PHANTOM, PHANTOM > 0, SPACING_MM, list(FEATURES), Texture(bins=6)))


def test_every_feature_has_a_reference_value() -> None:
    assert set(REFERENCE) == set(FEATURES)
    assert (PHANTOM > 0).sum() == 74


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_a_feature_agrees_with_the_ibsi(numbers: dict[str, float], name: str) -> None:
    wanted = REFERENCE[name]
    # References without a tolerance are given to three digits.
    tolerance = TOLERANCES.get(name, abs(wanted) * 0.005)
    assert numbers[name] == pytest.approx(wanted, abs=tolerance)


def test_the_longest_diameter_agrees_with_the_ibsi() -> None:
    assert longest_mm(PHANTOM > 0, SPACING_MM) == pytest.approx(13.1, abs=0.1)


def test_codes_are_the_standards_where_it_has_them_and_fit_their_field() -> None:
    known = {code: meaning for row in _concepts_dict.concepts["IBSI"].values() for code, (meaning, _) in row.items()}
    for feature in FEATURES.values():
        assert len(feature.code.value) == 4
        assert len(feature.code.meaning) <= 64
        assert feature.code.value not in known or known[feature.code.value] == feature.code.meaning
    codes = [feature.code.value for family in FAMILIES.values() for feature in family]
    assert len(set(codes)) == len(codes)
