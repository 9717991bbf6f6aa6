"""The process around a bundle: what bundles of other years, machines and networks take for granted.

Everything here changes the worker process for good, which is why each model has one of its own.
"""

from __future__ import annotations

import functools
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from overread.domain.errors import CardError
from overread.infer import respaced

# Names that NumPy 2 no longer has, and what they were.
NUMPY_1: dict[str, Any] = {
    "product": np.prod,
    "cumproduct": np.cumprod,
    "sometrue": np.any,
    "alltrue": np.all,
    "in1d": np.isin,
    "row_stack": np.vstack,
    "float_": np.float64,
    "complex_": np.complex128,
    "unicode_": np.str_,
    "Inf": np.inf,
    "NaN": np.nan,
    "infty": np.inf,
    "bool8": np.bool_,
}
# Constructor arguments that MONAI has dropped since and that changed nothing.
GONE_ARGUMENTS = {"SwinUNETR": ("img_size",)}

_load = torch.load


def prepare(folder: Path, device: torch.device) -> None:
    """Make this process ready for the bundle in ``folder``."""
    # A __pycache__ in the bundle would be run in place of the source that was trusted.
    sys.dont_write_bytecode = True
    sys.pycache_prefix = str(folder / "no-such-folder")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    warnings.simplefilter("ignore")
    logging.getLogger("monai").setLevel(logging.ERROR)
    _numpy_1()
    _only_weights(device)
    _no_downloads()
    if device.type == "cpu":
        _no_cuda()
    _gone_arguments()
    respaced.install()


def _numpy_1() -> None:
    for name, value in NUMPY_1.items():
        if name not in vars(np):
            setattr(np, name, value)


def _only_weights(device: torch.device) -> None:
    """``torch.load`` unpickles numbers only, and onto a device that is there, whatever the bundle asks for."""
    from torch.serialization import add_safe_globals

    array: Any = np.zeros(1).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "u1", "?")]
    add_safe_globals([array, np.ndarray, np.dtype, *kinds])

    def load(f: Any, map_location: Any = None, *_: Any, **options: Any) -> Any:
        if device.type == "cpu":
            map_location = "cpu"
        options = {k: v for k, v in options.items() if k == "mmap"}
        return _load(f, map_location=map_location, weights_only=True, **options)

    torch.load = load


def _no_downloads() -> None:
    import monai.apps.utils
    import torch.hub

    def refuse(*given: Any, **_: Any) -> Any:
        wanted = next((str(g) for g in given if str(g).startswith("http")), "a file")
        raise CardError(f"the bundle wants to download {wanted}; put it into its folder, overread runs offline")

    torch.hub.load_state_dict_from_url = refuse
    torch.hub.download_url_to_file = refuse
    monai.apps.utils.download_url = refuse


def _no_cuda() -> None:
    def stay(self: Any, *_: Any, **__: Any) -> Any:
        return self

    torch.Tensor.cuda = stay
    torch.nn.Module.cuda = stay


def _gone_arguments() -> None:
    from monai.networks import nets

    for name, gone in GONE_ARGUMENTS.items():
        kind = getattr(nets, name)
        original = kind.__init__
        if getattr(original, "overread", False):
            continue

        @functools.wraps(original)
        def tolerant(self: Any, *args: Any, _original: Any = original, _gone: Any = gone, **options: Any) -> None:
            _original(self, *args, **{k: v for k, v in options.items() if k not in _gone})

        tolerant.overread = True  # type: ignore[attr-defined]
        kind.__init__ = tolerant
