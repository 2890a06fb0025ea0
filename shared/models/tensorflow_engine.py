"""TensorFlow as an engine. Importing this module takes seconds."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.models.engine import EngineName
from shared.models.manifest import ModelError, ModelManifest
from shared.models.native_output import native_stderr_silenced

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # silences TensorFlow's start-up messages

with native_stderr_silenced():  # and those before it reads that setting
    import keras
    import tensorflow as tf

log = logging.getLogger(__name__)

Array = npt.NDArray[np.float32]


class TensorFlowEngine:
    """An `Engine`. Raises ModelError if TensorFlow cannot load the network."""

    name: EngineName = "tensorflow"

    def __init__(self, folder: Path, manifest: ModelManifest, threads: int) -> None:
        _limit_threads(threads)
        path = folder / manifest.weights
        try:
            network = keras.saving.load_model(path, compile=False)
        except (ValueError, TypeError, OSError, KeyError) as error:
            raise ModelError(f"TensorFlow {tf.__version__} cannot load {path}: {error}") from error

        def outputs(batch: Any) -> dict[str, Any]:
            return by_name(network(batch, training=False))

        signature = [tf.TensorSpec((None, *network.input_shape[1:]), tf.float32)]
        self._outputs = tf.function(outputs, input_signature=signature)

    def run(self, batch: Array) -> dict[str, Array]:
        return {name: values.numpy() for name, values in self._outputs(batch).items()}


def by_name(outputs: Any) -> dict[str, Any]:
    """The outputs of a Keras network, in any form that a model folder has them in, by their names."""
    if isinstance(outputs, dict):
        return outputs
    if isinstance(outputs, list | tuple):
        return dict(zip(("embedding", "tags"), outputs, strict=True))
    return {"genres": outputs}


def _limit_threads(threads: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        # TensorFlow is already running and keeps its number of threads.
        log.debug("TensorFlow keeps %d threads", tf.config.threading.get_intra_op_parallelism_threads())
