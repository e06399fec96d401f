"""Write a predictor as an ONNX file, which ONNX Runtime and others run without JAX."""

import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from anchor_jax.core.errors import UserError
from anchor_jax.export.format import Metadata
from anchor_jax.export.frozen import frozen_classifier
from anchor_jax.export.plain_program import plain
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runtime.atomic_files import write_new_file

SUFFIX = ".onnx"
INPUT = "images"
FORMAT = "anchor_jax.onnx/1"
PACKAGES = ("jax2onnx", "onnx", "onnxruntime")
_OPSET = 18  # the lowest that jax2onnx writes correctly, so that older runtimes can read the file
_TOLERANCE = 1e-4  # largest difference from the predictor, relative to the largest output above 1
_NUM_CHECKED = 3  # images that the file and the predictor classify


def check_installed() -> None:
    """Raise a `UserError` unless the packages that write and check ONNX files are installed."""
    for package in PACKAGES:
        _import(package)


def write_onnx(file: Path, predictor: Predictor, num_references: int, metadata: Metadata) -> None:
    """Write a predictor to a new ONNX file, after comparing what ONNX Runtime computes with the predictor.

    Args:
      file: path of the new file.
      predictor: a predictor in float32.
      num_references: K.
      metadata: becomes properties of the file, each as JSON; the outputs are those that it names.

    Raises:
      UserError: the file exists or cannot be written, a package is missing, or the outputs differ.
    """
    check_installed()
    shape = jax.export.symbolic_shape(f"batch, {', '.join(map(str, predictor.image_shape))}")
    images = jax.ShapeDtypeStruct(shape, jnp.uint8)
    classify = frozen_classifier(predictor, num_references, model=_OneBatch(predictor.network.model))
    names = [*metadata.outputs]

    def outputs(traced: jax.Array) -> list[jax.Array]:
        values = classify(traced)._asdict()
        return [values[name] for name in names]

    with _quiet("jax2onnx", "onnx_ir"):  # warn of parts of theirs that do not import, and of missing types
        model = _import("jax2onnx").to_onnx(
            plain(outputs, images), [images], opset=_OPSET, input_names=[INPUT], output_names=names
        )
    del model.graph.value_info[:]  # shapes that a runtime infers better by itself
    model.producer_name = "anchor_jax"
    _import("onnx").helper.set_model_props(model, _properties(metadata))
    content = model.SerializeToString()
    _check_agreement(content, predictor, num_references)
    with write_new_file(file) as new_file:
        new_file.write_bytes(content)


class _OneBatch:
    """A model whose `vmap` over references is one batch, as runtimes expect of convolutions and products."""

    first_layer = None  # tells `classify_images` that the model has one

    def __init__(self, model: nn.Module):
        self._model = model

    def apply(self, variables: Any, inputs: jax.Array, method: str | None = None) -> Any:
        @jax.custom_batching.custom_vmap
        def apply(x: jax.Array) -> Any:
            return self._model.apply(variables, x, method=method)

        @apply.def_vmap
        def _apply_vmap(axis_size: int, in_batched: Any, x: jax.Array) -> tuple[Any, bool]:
            del in_batched
            outputs: Any = self._model.apply(variables, x.reshape(-1, *x.shape[2:]), method=method)
            return outputs.reshape(axis_size, -1, *outputs.shape[1:]), True

        return apply(inputs)


def _properties(metadata: Metadata) -> dict[str, str]:
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    content = {"format": FORMAT} | dataclasses.asdict(metadata)
    content["versions"] = metadata.versions | versions
    del content["platforms"]  # any that the runtime supports
    return {key: json.dumps(value) for key, value in content.items()}


def _check_agreement(content: bytes, predictor: Predictor, num_references: int) -> None:
    """Raise if a file and a predictor differ by more than rounding."""
    shape = (_NUM_CHECKED, *predictor.image_shape)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    session = _import("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    expected = predictor(images, num_references)._asdict()
    for name, found in zip(names, session.run(names, {INPUT: images}), strict=True):
        difference = np.max(np.abs(found - expected[name]))
        if not difference <= _TOLERANCE * max(1.0, np.max(np.abs(expected[name]))):
            raise UserError(
                f"ONNX Runtime computes other {name} than the predictor (difference {difference:.1e}), so no file was "
                "written; export for JAX instead, and report this with the config of the run"
            )


def _import(package: str) -> ModuleType:
    try:
        with _quiet(package):
            return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"ONNX files need {', '.join(PACKAGES[:-1])} and {PACKAGES[-1]}, and {package} cannot be imported; run pip "
            "install 'anchor-jax[onnx]'"
        ) from error


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what they take from JAX
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
