"""ONNX Runtime as an engine."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from shared.models.engine import EngineName
from shared.models.manifest import ModelError, ModelManifest

Array = npt.NDArray[np.float32]
#: Only errors: a warning about the number of cores is no news to anybody.
_SEVERITY = 3


class OnnxEngine:
    """An `Engine` on the thread that calls it. Raises ModelError if the file is missing, damaged, or not for this
    version of ONNX Runtime.

    Threads of its own would wait for each other in a busy loop, for networks whose layers take microseconds. Several
    batches side by side (`shared.models.networks`) use the cores better.
    """

    name: EngineName = "onnx"

    def __init__(self, folder: Path, manifest: ModelManifest) -> None:
        if manifest.onnx is None:
            raise ModelError(
                f"{folder} holds no network for ONNX Runtime: `tonestream train export {folder}` makes one"
            )
        path = folder / manifest.onnx.file
        try:
            network = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{folder} holds no whole model: {error}") from error
        if hashlib.sha256(network).hexdigest() != manifest.onnx.sha256:
            raise ModelError(f"{path} is damaged, or belongs to another manifest")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = _SEVERITY
        try:
            self._session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the errors of ONNX Runtime have no common class
            raise ModelError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {error}") from error
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, batch: Array) -> dict[str, Array]:
        found = self._session.run(self._outputs, {self._input: batch})
        return dict(zip(self._outputs, found, strict=True))
