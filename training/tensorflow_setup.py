"""TensorFlow for training: bounded threads, fixed seeds."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import keras
import tensorflow as tf


def prepare(seed: int, threads: int) -> dict[str, str]:
    """Seed every generator and bound the threads; returns the versions for the manifest. Call before any model."""
    # A running TensorFlow keeps its number of threads.
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(seed)
    return {"tonestream": _own_version(), "tensorflow": tf.__version__, "keras": keras.__version__}


def _own_version() -> str:
    try:
        return version("tonestream")
    except PackageNotFoundError:
        return "not installed"
