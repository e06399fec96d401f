"""The program of a predictor with everything that it has learned as constants."""

from collections.abc import Callable
from typing import Any

import jax

from anchor_jax.core.inference import Classification
from anchor_jax.runs.network import classify_images
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runtime import mesh as mesh_lib


def frozen_classifier(
    predictor: Predictor, num_references: int, *, model: Any = None, chunk_size: int | None = None
) -> Callable[[jax.Array], Classification]:
    """Return a predictor as a function of images, uint8 `[B, H, W, C]`, whose number may be symbolic.

    Parameters, normalization and the first layer's outputs for the references are constants of the function.

    Args:
      predictor: the predictor.
      num_references: K.
      model: takes the place of the predictor's model; None for that.
      chunk_size: references evaluated at once; None for all.
    """
    network = predictor.network
    encoded = network.encode(predictor.variables, predictor.first_references(num_references))
    variables, references = mesh_lib.device_get_global((predictor.variables, encoded))
    applied = network.model if model is None else model

    def classify(images: jax.Array) -> Classification:
        votes = classify_images(applied, network.normalization, variables, references, images, chunk_size=chunk_size)
        return votes.classification

    return classify
