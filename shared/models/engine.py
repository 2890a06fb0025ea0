"""Engines: what runs the network of a model folder. TensorFlow and ONNX Runtime give the same outputs (to 1e-4).

TensorFlow trains the models and runs them where it is installed for that. ONNX Runtime takes a twentieth of the time to
import and a tenth of the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from shared.models.manifest import ModelError, ModelManifest

Array = npt.NDArray[np.float32]
EngineName = Literal["onnx", "tensorflow"]

#: The package of each engine, in the order of preference.
_PACKAGES: Final[Mapping[EngineName, str]] = {"onnx": "onnxruntime", "tensorflow": "tensorflow"}


class Engine(Protocol):
    """A loaded network. Safe from many threads."""

    name: EngineName

    def run(self, batch: Array) -> dict[str, Array]:
        """The outputs by name (`shared.models.manifest`), float32, of a ``batch`` of inputs, float32 [n, ...]."""
        ...


def load_engine(name: EngineName | Literal["auto"], folder: Path, manifest: ModelManifest, threads: int) -> Engine:
    """The network in ``folder`` on that engine; ``auto`` is the best one installed. TensorFlow, which has one pool of
    threads for the process, is held to ``threads`` of them.

    Raises ModelError if the engine is not installed, or cannot load the network.
    """
    if name == "auto":
        name = _best(manifest)
    if find_spec(_PACKAGES[name]) is None:
        raise ModelError(f"the engine {name} is not installed: pip install {_PACKAGES[name]}")
    if name == "onnx":
        from shared.models.onnx_engine import OnnxEngine

        return OnnxEngine(folder, manifest)
    from shared.models.tensorflow_engine import TensorFlowEngine  # TensorFlow takes seconds to import

    return TensorFlowEngine(folder, manifest, threads)


def _best(manifest: ModelManifest) -> EngineName:
    """The preferred engine that is installed. A model of an older version has no file for ONNX Runtime."""
    for name, package in _PACKAGES.items():
        if find_spec(package) is not None and (name != "onnx" or manifest.onnx is not None):
            return name
    needed = "tensorflow" if manifest.onnx is None else "onnxruntime or tensorflow"
    raise ModelError(f"no engine for {manifest.model_id} is installed: pip install {needed}")
