"""scikit-learn classifiers over the measured features of a region, from skops or ONNX files, never from a pickle."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overread.domain.card import Card
from overread.domain.errors import CardError, Unfit
from overread.domain.features import expand
from overread.domain.reading import Likelihood, Reading
from overread.infer.engines import Grid
from overread.infer.trust import verified
from overread.measure.vector import vector

# What skops does not trust by itself and fitted forests, gradient boosting and calibrated classifiers are made of:
# data of scikit-learn itself, no functions. A crafted tree can crash the process, which is the model's own. Everything
# else is refused by its name.
TRUSTED = frozenset(
    {
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.tree._tree.Tree",
    }
)
Probabilities = Callable[[NDArray[np.float32]], NDArray[np.float64]]


class Classifier:
    """A fitted classifier. Raises CardError when its file, its features or its classes are not those of the card."""

    def __init__(self, card: Card, device: str) -> None:
        self._card = card
        self._features = expand(card.features)
        if not self._features or "suvbw" in self._features:
            raise CardError('a classifier needs `features`, measured from its region; "suvbw" is not among them')
        self._notes: list[str] = []
        data = verified(card)
        load = self._onnx if card.weights.endswith(".onnx") else self._skops
        self._probabilities, classes = load(data, device)
        self._values = _values(card, classes)

    def read(self, volumes: Sequence[Grid], progress: Callable[[float], None]) -> Reading:
        """Classes of the region in ``volumes[0].mask``; raises Unfit when one of its features is not defined."""
        volume = volumes[0]
        if volume.mask is None:
            raise CardError("a classifier needs a region: put it into [[stages]], with `within`")
        if not volume.mask.any():
            raise Unfit("the region that the classifier is for is empty")
        numbers = vector(volume.voxels, volume.affine, volume.mask, self._features)
        lacking = [name for name in self._features if not math.isfinite(numbers[name])]
        if lacking:
            raise Unfit(f"the feature {lacking[0]} is not defined for this region")
        row = np.array([[numbers[name] for name in self._features]], np.float32)
        likely = np.asarray(self._probabilities(row), np.float64)[0]
        best = int(likely.argmax())
        progress(1.0)
        pairs = enumerate(zip(self._values, likely, strict=True))
        classes = tuple(Likelihood(value, float(p), n == best) for n, (value, p) in pairs if value)
        return Reading(classes=classes, notes=tuple(self._notes))

    def _skops(self, data: bytes, _: str) -> tuple[Probabilities, Sequence[Any]]:
        try:
            from skops.io import get_untrusted_types, loads
        except ImportError:
            raise CardError("the engine needs skops; install it: pip install 'overread[sklearn]'") from None
        try:
            foreign = get_untrusted_types(data=data)
        except Exception as error:
            # The edge to a reader of foreign files.
            raise CardError(f"the weights {self._card.weights} are no skops file: {type(error).__name__}") from error
        refused = [name for name in foreign if name not in TRUSTED]
        if refused:
            raise CardError(f"the weights {self._card.weights} hold types that are not trusted: {', '.join(refused)}")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model = loads(data, trusted=[name for name in foreign if name in TRUSTED])
        if any("Inconsistent" in type(w.message).__name__ for w in said):
            self._notes.append("the classifier was fitted with another version of scikit-learn")
        self._check_features(model)
        if not hasattr(model, "predict_proba"):
            raise CardError(f"{type(model).__name__} gives no probabilities; calibrate it (CalibratedClassifierCV)")
        return model.predict_proba, model.classes_

    def _check_features(self, model: Any) -> None:
        named = getattr(model, "feature_names_in_", None)
        if named is not None and tuple(map(str, named)) != self._features:
            differ = [f"{a} ≠ {b}" for a, b in zip(map(str, named), self._features, strict=False) if a != b]
            raise CardError(
                f"the classifier was fitted on {len(named)} features, the card names {len(self._features)}; "
                f"they differ at: {', '.join(differ[:3]) or 'the end'}"
            )
        self._check_count(getattr(model, "n_features_in_", None))

    def _check_count(self, count: Any) -> None:
        if isinstance(count, int | np.integer) and int(count) != len(self._features):
            raise CardError(f"the classifier takes {count} features, the card names {len(self._features)}")

    def _onnx(self, data: bytes, device: str) -> tuple[Probabilities, Sequence[Any]]:
        from overread.infer.onnx import session

        running = session(self._card, data, device)
        (given,) = running.get_inputs()[:1]
        self._check_count(given.shape[-1])

        def probabilities(row: NDArray[np.float32]) -> NDArray[np.float64]:
            answer = running.run(None, {given.name: row})[-1]
            if isinstance(answer, list):  # a map from class to probability for each row
                answer = [list(item.values()) for item in answer]
            return np.asarray(answer, np.float64)

        return probabilities, self._classes(running, given)

    def _classes(self, running: Any, given: Any) -> Sequence[Any]:
        answer = running.run(None, {given.name: np.zeros((1, len(self._features)), np.float32)})[-1]
        if isinstance(answer, list) and isinstance(answer[0], dict):
            return list(answer[0])
        return self._card.postprocess.channels or [label.value for label in self._card.labels]


def _values(card: Card, classes: Sequence[Any]) -> list[int]:
    """The label value of each class: a class is a label's value, 0 for none of them, or a label's name."""
    names = {label.name: label.value for label in card.labels}
    known = {0, *names.values()}
    values = [names.get(str(c), int(c) if isinstance(c, int | np.integer) else -1) for c in classes]
    strangers = [str(c) for c, value in zip(classes, values, strict=True) if value not in known]
    if strangers:
        raise CardError(f"the classifier knows the class {strangers[0]!r}, the card has no such label")
    return values
