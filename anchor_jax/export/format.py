"""Exported classifiers: a program and what there is to know of it, in one file that JAX alone runs.

The file is a zip archive of two members: `metadata.json`, see `Metadata`, and `program.stablehlo`, which
`jax.export.deserialize` takes. No Python is in it, and nothing of pickle.
"""

import dataclasses
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import Exported

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.core.inference import Classification
from anchor_jax.runtime import backends
from anchor_jax.runtime.atomic_files import write_new_file

FORMAT = "anchor_jax.export/1"
METADATA, PROGRAM = "metadata.json", "program.stablehlo"
_OPTIONAL = "probs_std"  # one reference has no spread
_OF_CLASSES = {"logits", "probs", "probs_std"}


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What there is to know of an exported classifier.

    Attributes:
      label_names: one name a class.
      image_shape: H, W and C of the images.
      model: name of the network.
      step: of the checkpoint.
      num_references: K, None for a standard network.
      outputs: names of what the program gives, those of a `Classification`; without the spread where K is 1 or None.
      platforms: on which the program runs.
      versions: of the packages that wrote it.
    """

    label_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    model: str
    step: int
    num_references: int | None
    outputs: tuple[str, ...]
    platforms: tuple[str, ...]
    versions: dict[str, str]


@dataclasses.dataclass(frozen=True)
class ExportedClassifier:
    """Classifies raw images, as the `Predictor` of the run does with the first K references.

    Attributes:
      metadata: what there is to know of it.
      program: uint8 `[B, H, W, C]` -> a `Classification` as a dictionary; compiled for each B that is new.
    """

    metadata: Metadata
    program: Callable[[np.ndarray], dict[str, jax.Array]]

    @property
    def label_names(self) -> tuple[str, ...]:
        """One name a class."""
        return self.metadata.label_names

    @property
    def image_shape(self) -> tuple[int, ...]:
        """H, W and C of the images."""
        return self.metadata.image_shape

    @property
    def num_references(self) -> int | None:
        """K, None for a standard network."""
        return self.metadata.num_references

    def __call__(self, images: np.ndarray) -> Classification:
        """Classify images, each without regard to its neighbours.

        Args:
          images: uint8 `[B, H, W, C]`, as they are stored: not normalised.

        Returns:
          `Classification` of NumPy arrays, B rows each; `probs_std` is None for one reference or a standard network.

        Raises:
          UserTypeError: the images are not uint8.
          UserError: they are not `[B, H, W, C]` of the run's shape.
        """
        checks.stored_images("images", images, self.image_shape)
        return Classification(**{_OPTIONAL: None} | jax.device_get(self.program(images)))


def write_archive(file: Path, program: Exported, metadata: Metadata) -> None:
    """Write a program of images, and what there is to know of it, to a new file; the same bytes for the same of both.

    Raises:
      UserError: the file is there already or cannot be written.
    """
    content = {"format": FORMAT} | dataclasses.asdict(metadata)
    with write_new_file(file) as new, zipfile.ZipFile(new, "w") as archive:
        archive.writestr(_member(METADATA), json.dumps(content, indent=2) + "\n")
        archive.writestr(_member(PROGRAM), program.serialize())


def load_exported(file: str | os.PathLike[str]) -> ExportedClassifier:
    """The classifier in a file that `python -m anchor_jax.export` wrote.

    A file may hold any program that XLA can run: take it from those alone whom you trust, see SECURITY.md.

    Args:
      file: its path.

    Raises:
      UserTypeError: `file` is no path.
      UserError: there is no such file, it is damaged or another kind of file, or its program is not for the
        platform that JAX runs on.
    """
    checks.path("file", file)
    if not os.path.exists(file):
        raise UserError(f"no file '{file}'; give one that python -m anchor_jax.export wrote")
    try:
        with zipfile.ZipFile(file) as archive:
            metadata = _metadata_of(json.loads(archive.read(METADATA)))
            program = jax.export.deserialize(bytearray(archive.read(PROGRAM)))
        _check_fit(program, metadata)
    except Exception as error:  # zipfile, json and flatbuffers raise many kinds on damaged bytes
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"cannot read '{file}' ({type(error).__name__}: {reason}); give an undamaged one that "
            f"python -m anchor_jax.export wrote, with JAX {jax.__version__} or an older one"
        ) from error
    platform = jax.export.default_export_platform()
    if platform not in program.platforms:
        raise UserError(
            f"'{file}' is for {', '.join(program.platforms)}, and JAX runs on {platform} here; export it again with "
            f"--platforms={','.join((*program.platforms, platform))}"
        )
    options = backends.compiler_options(jax.default_backend())
    return ExportedClassifier(metadata, jax.jit(program.call, compiler_options=options))


def _member(name: str) -> zipfile.ZipInfo:
    """A member of the archive, without the time of the day."""
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o644 << 16  # what it may be done with, once it is unpacked
    return member


def _metadata_of(content: Any) -> Metadata:
    """The metadata in a file, each of its type."""
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
    fields: dict[str, Any] = {field.name: content[field.name] for field in dataclasses.fields(Metadata)}
    for name in ("label_names", "outputs", "platforms"):
        if not isinstance(fields[name], list) or not all(isinstance(text, str) for text in fields[name]):
            raise ValueError(f"{name} must be a list of names")
        fields[name] = tuple(fields[name])
    checks.image_shape("image_shape", fields["image_shape"])
    checks.text("model", fields["model"])
    checks.instance("versions", fields["versions"], dict, "anchor_jax.export")
    checks.count("step", fields["step"], least=0)
    if fields["num_references"] is not None:
        checks.count("num_references", fields["num_references"])
    fields["image_shape"] = tuple(fields["image_shape"])
    return Metadata(**fields)


def _check_fit(program: Exported, metadata: Metadata) -> None:
    """Refuses a program that is not the one of its metadata."""
    if program.nr_devices != 1:  # none are found by JAX 0.8 in what newer ones wrote
        raise ValueError(f"{PROGRAM} is for {program.nr_devices} devices, not one")
    (images,), is_of_images = program.in_avals, program.in_tree == jax.tree.structure(((0,), {}))
    outputs = jax.tree.unflatten(program.out_tree, program.out_avals)
    classes = (len(metadata.label_names),)
    expected = {name: classes if name in _OF_CLASSES else () for name in metadata.outputs}
    if (
        not is_of_images
        or (images.dtype, images.shape[1:]) != (jnp.uint8, metadata.image_shape)
        or {name: output.shape[1:] for name, output in outputs.items()} != expected
        or expected.keys() | {_OPTIONAL} != set(Classification._fields)
        or program.platforms != metadata.platforms
    ):
        raise ValueError(f"{PROGRAM} is not what {METADATA} says it is")
