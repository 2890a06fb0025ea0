"""musicnn in Keras: the network of Pons and Serra 2019, with their published weights, in our own graph.

"musicnn: pre-trained convolutional neural networks for music audio tagging" (late-breaking demo, ISMIR 2019). The
package of that name on PyPI carries TensorFlow 1 checkpoints under the ISC licence (models/MUSICNN-LICENSE.md); its
graph code does not run on current TensorFlow, so only the weights are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

Array = npt.NDArray[np.float32]
Variables = Mapping[str, Array]

#: The training set behind the weights: the Million Song Dataset, or MagnaTagATune.
Corpus = Literal["MSD", "MTT"]

#: The tags of the networks, in the order of their last layer.
MSD_TAGS: Final = (
    "rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s", "alternative rock",
    "jazz", "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul", "indie rock", "mellow",
    "electronica", "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies", "blues", "hard rock", "ambient",
    "acoustic", "experimental", "female vocalist", "guitar", "hip-hop", "70s", "party", "country", "easy listening",
    "sexy", "catchy", "funk", "electro", "heavy metal", "progressive rock", "60s", "rnb", "indie pop", "sad", "house",
    "happy",
)  # fmt: skip
MTT_TAGS: Final = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano", "ambient",
    "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals", "no vocals",
    "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man",
    "classic", "choir", "voice", "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello",
    "no voice", "weird", "country", "metal", "female voice", "choral",
)  # fmt: skip
TAGS: Final[Mapping[Corpus, tuple[str, ...]]] = {"MSD": MSD_TAGS, "MTT": MTT_TAGS}

_BANDS: Final = 96
_EPSILON: Final = 1e-3


def trunk(variables: Variables, frames: int, prefix: str = "") -> Any:
    """Front end and middle: log-mel spectrogram [n, frames, 96] to activations [n, frames, 753]."""
    spectrogram = keras.Input((frames, _BANDS), name=f"{prefix}spectrogram")
    x = keras.layers.Reshape((frames, _BANDS, 1))(spectrogram)
    x = _normalise(variables, x, "batch_normalization", f"{prefix}input_norm")
    padded = keras.layers.ZeroPadding2D((3, 0))(x)
    parts = [
        _pooled_convolution(variables, padded, number, "valid", f"{prefix}timbral{number}") for number in (0, 1)
    ] + [_pooled_convolution(variables, x, number, "same", f"{prefix}temporal{number}") for number in (2, 3, 4)]
    front = keras.layers.Concatenate(name=f"{prefix}front_end")(parts)
    layers = [front]
    for number in (5, 6, 7):
        kernel = variables[f"conv2d_{number}/kernel"]
        name = f"{prefix}middle{number - 5}"
        convolution = _with_weights(
            keras.layers.Conv1D(kernel.shape[-1], kernel.shape[0], padding="same", activation="relu", name=name),
            layers[-1],
            [kernel[:, :, 0, :], variables[f"conv2d_{number}/bias"]],
        )
        x = convolution(layers[-1])
        x = _normalise(variables, x, f"batch_normalization_{number + 1}", f"{prefix}middle_norm{number - 5}")
        layers.append(x if number == 5 else keras.layers.Add()([x, layers[-1]]))
    return keras.Model(spectrogram, keras.layers.Concatenate(name=f"{prefix}activations")(layers))


def tagger(variables: Variables, frames: int, prefix: str = "") -> Any:
    """The whole network: log-mel spectrogram [n, frames, 96] to (embedding [n, 200], logits of the tags [n, 50])."""
    stem = trunk(variables, frames, prefix)
    activations = stem.output
    pooled = keras.layers.Concatenate()(
        [keras.layers.GlobalMaxPooling1D()(activations), keras.layers.GlobalAveragePooling1D()(activations)]
    )
    # The published weights interleave maximum and mean of each channel; here they are two blocks.
    order = np.concatenate([np.arange(0, 1506, 2), np.arange(1, 1506, 2)])
    pooled = _normalise(variables, pooled, "batch_normalization_9", f"{prefix}pooled_norm", order)
    dense = _with_weights(
        keras.layers.Dense(200, activation="relu", name=f"{prefix}dense"),
        pooled,
        [variables["dense/kernel"][order], variables["dense/bias"]],
    )
    embedding = _normalise(variables, dense(pooled), "batch_normalization_10", f"{prefix}embedding")
    tags = _with_weights(
        keras.layers.Dense(50, name=f"{prefix}tags"),
        embedding,
        [variables["dense_1/kernel"], variables["dense_1/bias"]],
    )
    return keras.Model(stem.input, [embedding, tags(embedding)])


def _pooled_convolution(variables: Variables, x: Any, number: int, padding: str, name: str) -> Any:
    """Convolution over time and bands, then the maximum over bands: [n, frames, bands, 1] to [n, frames, filters]."""
    suffix = f"_{number}" if number else ""
    kernel = variables[f"conv2d{suffix}/kernel"]
    convolution = _with_weights(
        keras.layers.Conv2D(kernel.shape[-1], kernel.shape[:2], padding=padding, activation="relu", name=name),
        x,
        [kernel, variables[f"conv2d{suffix}/bias"]],
    )
    x = _normalise(variables, convolution(x), f"batch_normalization_{number + 1}", f"{name}_norm")
    x = keras.layers.MaxPooling2D((1, x.shape[2]))(x)
    return keras.layers.Reshape((x.shape[1], x.shape[3]))(x)


def _normalise(variables: Variables, x: Any, scope: str, name: str, order: Any = slice(None)) -> Any:
    weights = [variables[f"{scope}/{part}"][order] for part in ("gamma", "beta", "moving_mean", "moving_variance")]
    layer = keras.layers.BatchNormalization(epsilon=_EPSILON, name=name, trainable=False)
    return _with_weights(layer, x, weights)(x)


def _with_weights(layer: Any, x: Any, weights: list[Array]) -> Any:
    layer.build(x.shape)
    layer.set_weights(weights)
    layer.trainable = False
    return layer


def read_variables(checkpoint: Path) -> dict[str, Array]:
    """The variables of a published checkpoint: a folder of the package such as ``musicnn/MSD_musicnn``."""
    reader = tf.compat.v1.train.NewCheckpointReader(f"{checkpoint}/")
    names = [name for name in reader.get_variable_to_shape_map() if "Adam" not in name and "power" not in name]
    return {name: reader.get_tensor(name) for name in names}
