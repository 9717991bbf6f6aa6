"""Classifiers over measured features: only from safe files, and only on the features that they were fitted on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overread.domain.card import Card, read_card
from overread.domain.errors import CardError, Unfit
from overread.infer.engines import Grid

pytest.importorskip("sklearn", reason="scikit-learn is not installed (pip install 'overread[sklearn]')")
skops = pytest.importorskip("skops.io", reason="skops is not installed (pip install 'overread[sklearn]')")
pytestmark = pytest.mark.filterwarnings("ignore")  # scikit-learn's own deprecations

FEATURES = ("volume", "longest_diameter")
CARD = """
name = "verdict"
version = "1"
title = "Verdict"
manufacturer = "overread"
engine = "sklearn"
task = "classification"
weights = "{weights}"
weights_sha256 = "{digest}"
features = {features}
[accepts]
modality = "CT"
[[labels]]
value = 1
name = "small"
type = ["27925004", "SCT", "Nodule"]
[[labels]]
value = 2
name = "large"
type = ["27925004", "SCT", "Nodule"]
"""


def examples() -> tuple[Any, Any]:
    """Volumes in ml and diameters in mm; small and large."""
    rng = np.random.default_rng(0)
    small = rng.normal([0.1, 5.0], [0.02, 0.5], (40, 2))
    large = rng.normal([20.0, 40.0], [2.0, 3.0], (40, 2))
    return np.vstack([small, large]).astype(np.float32), np.array([1] * 40 + [2] * 40)


def card(folder: Path, data: bytes, *, name: str = "model.skops", features: tuple[str, ...] = FEATURES) -> Card:
    (folder / name).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    text = CARD.format(weights=name, digest=digest, features=json.dumps(features))
    (folder / "card.toml").write_text(text)
    return read_card(folder)


def classify(card: Card, radius: int) -> str:
    from overread.infer.sklearn import Classifier

    z, y, x = np.indices((40, 40, 40)) - 20
    mask = z**2 + y**2 + x**2 <= radius**2
    reading = Classifier(card, "cpu").read([Grid(np.zeros(mask.shape), np.eye(4), (), mask)], lambda _: None)
    assert sum(c.probability for c in reading.classes) == pytest.approx(1.0, abs=1e-5)
    (chosen,) = [c.label for c in reading.classes if c.chosen]
    return {1: "small", 2: "large"}[chosen]


def models() -> dict[str, Any]:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    return {
        "support vectors": make_pipeline(StandardScaler(), CalibratedClassifierCV(SVC(), ensemble=False)),
        "random forest": RandomForestClassifier(8, random_state=0),
        "gradient boosting": GradientBoostingClassifier(n_estimators=8, random_state=0),
        "histogram gradient boosting": HistGradientBoostingClassifier(max_iter=8),
    }


@pytest.mark.parametrize("kind", sorted(models()))
def test_a_classifier_of_each_kind_judges_from_a_skops_file(kind: str, tmp_path: Path) -> None:
    made = card(tmp_path, skops.dumps(models()[kind].fit(*examples())))
    assert [classify(made, radius) for radius in (2, 16)] == ["small", "large"]


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("kind", ["support vectors", "random forest", "gradient boosting"])
def test_a_classifier_of_each_kind_judges_from_an_onnx_file(kind: str, zipmap: bool, tmp_path: Path) -> None:
    convert = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed (pip install skl2onnx)")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install 'overread[onnx]')")
    x, y = examples()
    model = models()[kind].fit(x, y)
    options = {"zipmap": zipmap}
    data = convert.to_onnx(model, x[:1], options=options).SerializeToString()
    made = card(tmp_path, data, name="model.onnx")
    assert [classify(made, radius) for radius in (2, 16)] == ["small", "large"]


def test_a_file_with_types_that_are_not_trusted_is_refused_by_their_names(tmp_path: Path) -> None:
    import operator

    from sklearn.preprocessing import FunctionTransformer

    from overread.infer.sklearn import Classifier

    data = skops.dumps(FunctionTransformer(operator.methodcaller("__len__")))
    with pytest.raises(CardError, match=r"operator\.methodcaller"):
        Classifier(card(tmp_path, data), "cpu")


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    import pickle

    from overread.infer.sklearn import Classifier

    with pytest.raises(CardError, match="no skops file"):
        Classifier(card(tmp_path, pickle.dumps({"a": 1}), name="model.pkl"), "cpu")


def test_other_features_than_it_was_fitted_on_are_refused(tmp_path: Path) -> None:
    import pandas

    from overread.infer.sklearn import Classifier

    x, y = examples()
    named = models()["random forest"].fit(pandas.DataFrame(x, columns=list(FEATURES)), y)
    data = skops.dumps(named)
    Classifier(card(tmp_path, data), "cpu")
    with pytest.raises(CardError, match="volume ≠ longest_diameter"):
        Classifier(card(tmp_path, data, features=FEATURES[::-1]), "cpu")
    unnamed = skops.dumps(models()["random forest"].fit(x, y))
    with pytest.raises(CardError, match="takes 2 features, the card names 3"):
        Classifier(card(tmp_path, unnamed, features=(*FEATURES, "long_axis")), "cpu")
    with pytest.raises(CardError, match=r"did you mean 'firstorder.mean'"):
        card(tmp_path, unnamed, features=("firstorder.meen",))


def test_a_class_that_is_no_label_is_refused_and_a_labels_name_is_its_value(tmp_path: Path) -> None:
    from overread.infer.sklearn import Classifier

    x, y = examples()
    stranger = skops.dumps(models()["random forest"].fit(x, np.where(y == 2, 7, 1)))
    with pytest.raises(CardError, match="class '7'"):
        Classifier(card(tmp_path, stranger), "cpu")
    named = skops.dumps(models()["random forest"].fit(x, np.where(y == 2, "large", "small")))
    assert classify(card(tmp_path, named), 16) == "large"


def test_a_region_is_needed_and_must_not_be_empty(tmp_path: Path) -> None:
    from overread.infer.sklearn import Classifier

    model = Classifier(card(tmp_path, skops.dumps(models()["random forest"].fit(*examples()))), "cpu")
    with pytest.raises(CardError, match="stages"):
        model.read([Grid(np.zeros((4, 4, 4)), np.eye(4))], lambda _: None)
    with pytest.raises(Unfit, match="empty"):
        model.read([Grid(np.zeros((4, 4, 4)), np.eye(4), (), np.zeros((4, 4, 4), bool))], lambda _: None)
