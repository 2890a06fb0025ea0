"""Networks for ONNX Runtime, written from Keras ones."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import keras
import onnx
import tensorflow as tf
import tf2onnx

from shared.models.manifest import ModelManifest, OnnxFile, load_manifest, store_manifest
from shared.models.tensorflow_engine import by_name

FILE: Final = "model.onnx"
_OPSET: Final = 18


def export_onnx(network: Any, folder: Path) -> OnnxFile:
    """Write the Keras ``network`` into ``folder`` for ONNX Runtime. Its outputs have the names of the manifest."""

    def outputs(features: Any) -> dict[str, Any]:
        return by_name(network(features, training=False))

    signature = tf.TensorSpec((None, *network.input_shape[1:]), tf.float32, name="features")
    function = tf.function(outputs, input_signature=[signature])
    traced = function.get_concrete_function()
    model, _ = tf2onnx.convert.from_function(function, input_signature=[signature], opset=_OPSET)
    # Tensors that layers captured look like further inputs.
    captured = zip(traced.inputs[1:], traced.captured_inputs, strict=True)
    constants = {tensor.name: value.numpy() for tensor, value in captured if value.dtype != tf.resource}
    for extra in [one for one in model.graph.input if one.name in constants]:
        model.graph.initializer.append(onnx.numpy_helper.from_array(constants[extra.name], extra.name))
        model.graph.input.remove(extra)
    onnx.checker.check_model(model)
    written = model.SerializeToString(deterministic=True)
    (folder / FILE).write_bytes(written)
    return OnnxFile(file=FILE, sha256=hashlib.sha256(written).hexdigest())


def add_onnx(folder: Path) -> ModelManifest:
    """Export the network of a finished model ``folder``, and name the file in its manifest. Raises ModelError."""
    manifest = load_manifest(folder)
    network = keras.saving.load_model(folder / manifest.weights, compile=False)
    return store_manifest(folder, manifest.model_copy(update={"onnx": export_onnx(network, folder)}))
