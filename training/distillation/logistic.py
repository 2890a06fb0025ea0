"""Multinomial logistic regression around given logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.intp]


def multinomial(
    inputs: Floats,
    prior: Floats,
    labels: Integers,
    importance: Floats,
    penalty: float = 1.0,
    bias_penalty: float = 0.01,
) -> tuple[Floats, Floats]:
    """Weights [features, classes] and bias [classes] fitted to ``labels`` [n], beside ``prior`` logits [n, classes].

    ``inputs`` are [n, features]. ``importance`` [n] adds up to 1. ``penalty`` is the L2 regularisation strength of the
    weights.
    """
    features, classes = inputs.shape[1], prior.shape[1]
    targets = np.eye(classes)[labels]

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights, bias = flat[: features * classes].reshape(features, classes), flat[features * classes :]
        log_probabilities = scipy.special.log_softmax(inputs @ weights + bias + prior, axis=1)
        error = (np.exp(log_probabilities) - targets) * importance[:, None]
        value = -(importance * log_probabilities[np.arange(len(labels)), labels]).sum()
        value += (penalty * (weights**2).sum() + bias_penalty * (bias**2).sum()) / 2
        slope = np.concatenate([(inputs.T @ error + penalty * weights).ravel(), error.sum(0) + bias_penalty * bias])
        return float(value), slope

    start = np.zeros((features + 1) * classes)
    flat = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    return flat[: features * classes].reshape(features, classes), flat[features * classes :]


def balanced(labels: Integers) -> Floats:
    """The importance of each item: the same for each class, adding up to 1."""
    counts = np.bincount(labels)
    importance: Floats = 1.0 / (counts[labels] * (counts > 0).sum())
    return importance
