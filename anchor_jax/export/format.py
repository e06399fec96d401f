"""The file format of exported classifiers, which runs with JAX alone.

A file is a zip archive with two members: `metadata.json`, see `Metadata`, and `program.stablehlo`, the input of
`jax.export.deserialize`. It contains no Python code and no pickles.
"""

import dataclasses
import json
import os
import zipfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.export import Exported

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.core.inference import Classification
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.data.orientation import STORED
from anchor_jax.data.preprocessing import Preprocessing
from anchor_jax.runtime import backends
from anchor_jax.runtime.atomic_files import write_new_file
from anchor_jax.runtime.paths import storage_path
from anchor_jax.runtime.settings import gather_from_devices, with_own_settings

FORMAT = "anchor_jax.export/1"
METADATA, PROGRAM = "metadata.json", "program.stablehlo"
OPTIONAL_OUTPUT = "probs_std"  # a single reference has no standard deviation
_OUTPUTS_PER_CLASS = {"logits", "probs", "probs_std"}


@short_repr
@dataclasses.dataclass(frozen=True)
class Metadata:
    """Description of an exported classifier.

    Attributes:
      label_names: one name per class.
      image_shape: H, W and C of the images.
      model: name of the model, see `anchor_jax.models.create`.
      step: training step of the checkpoint.
      num_references: K, or None for a standard model.
      outputs: names of the outputs, fields of a `Classification`; "probs_std" is absent if K is 1 or None.
      platforms: platforms that the program runs on, such as "cpu", "cuda" or "tpu".
      versions: versions of the packages that wrote the file.
      preprocessing: the steps from pictures to images of the exported run; None in files of earlier versions.
    """

    label_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    model: str
    step: int
    num_references: int | None
    outputs: tuple[str, ...]
    platforms: tuple[str, ...]
    versions: dict[str, str]
    preprocessing: Preprocessing | None = None

    def __post_init__(self):
        for name in ("label_names", "outputs", "platforms"):
            object.__setattr__(self, name, checks.several(name, getattr(self, name)))
        object.__setattr__(self, "image_shape", checks.image_shape("image_shape", self.image_shape))


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)  # hashable, for jit
class ExportedClassifier:
    """A classifier of raw images, loaded by `load_exported`.

    It returns what the `Predictor` of the exported run returns for its first K references. It and its program also work
    inside `jit` and `vmap`, together with others.

    Attributes:
      metadata: description of the classifier.
      program: uint8 `[B, H, W, C]` -> fields of a `Classification` by name; compiled once per batch size B.
    """

    metadata: Metadata
    program: Callable[[Any], dict[str, jax.Array]]

    @property
    def label_names(self) -> tuple[str, ...]:
        """One name per class."""
        return self.metadata.label_names

    @property
    def image_shape(self) -> tuple[int, ...]:
        """H, W and C of the images."""
        return self.metadata.image_shape

    @property
    def num_references(self) -> int | None:
        """K, or None for a standard model."""
        return self.metadata.num_references

    @property
    def preprocess(self) -> Preprocessing:
        """The steps from pictures to images, which are those of the exported run.

        Files of earlier versions do not contain them. Pictures are then resized and cropped to `image_shape`, by
        bicubic interpolation, without regard to an orientation in EXIF data; log lines say so.
        """
        height, width, channels = self.image_shape
        of_earlier_version = Preprocessing(height, width, channels, orientation=STORED, resize=False)
        return self.metadata.preprocessing or of_earlier_version

    @with_own_settings
    def __call__(self, images: Any) -> Classification:
        """Classify images, each independently of the others in the batch.

        Args:
          images: uint8 `[B, H, W, C]`, as stored: not normalized; or pictures of any size, one or several: paths, bytes
            of image files, PIL images, arrays uint8 `[h, w]` or `[h, w, c]`. See `preprocess`.

        Returns:
          `Classification` of NumPy arrays with B rows, of JAX where the images are traced; `probs_std` is None for a
          single reference or a standard model.

        Raises:
          UserTypeError: an image has another type or dtype.
          UserError: a picture cannot be read or converted.
        """
        if isinstance(images, Tracer):
            checks.stored_images("images", images, self.image_shape)
            return Classification(**{OPTIONAL_OUTPUT: None, **self.program(images)})
        images = self.preprocess.batch("images", images)
        outputs: dict[str, Any] = jax.device_get(self.program(gather_from_devices(images)))
        return Classification(**{OPTIONAL_OUTPUT: None, **outputs})


def write_archive(file: str | os.PathLike[str], program: Exported, metadata: Metadata) -> None:
    """Write a classifier to a new file; equal inputs give equal bytes.

    Args:
      file: path of the new file.
      program: uint8 images `[b, H, W, C]` with a symbolic b -> fields of a `Classification` by name.
      metadata: description of the program.

    Raises:
      UserError: the file exists or cannot be written.
    """
    file = storage_path("file", file)
    content = {"format": FORMAT} | dataclasses.asdict(metadata)
    with write_new_file(file) as new_file, zipfile.ZipFile(new_file, "w") as archive:
        archive.writestr(_member(METADATA), json.dumps(content, indent=2) + "\n")
        archive.writestr(_member(PROGRAM), program.serialize())


def load_exported(file: str | os.PathLike[str]) -> ExportedClassifier:
    """Load a classifier from a file written by `python -m anchor_jax.export`.

    A file may contain any program that XLA can run. Load files only from people you trust, see SECURITY.md.

    Args:
      file: path of the file.

    Returns:
      A function from raw images, uint8 `[B, H, W, C]`, or pictures to a `Classification`; `label_names`,
      `image_shape`, `num_references`, `preprocess` and `metadata` are its attributes.

    Raises:
      UserTypeError: `file` is not a path.
      UserError: the file does not exist, is corrupt or of another kind, or its program is not for the platform that
        JAX runs on.

    Example:
      Write a program that predicts 50 % for each of two classes, and load it.

      >>> import tempfile
      >>> from pathlib import Path
      >>> import anchor_jax as aj
      >>> import jax, jax.numpy as jnp, numpy as np
      >>> from anchor_jax.export import Metadata, write_archive
      >>> def classify(images):
      ...     batch = images.shape[0]
      ...     return {
      ...         "logits": jnp.zeros((batch, 2)),
      ...         "probs": jnp.full((batch, 2), 0.5),
      ...         "entropy": jnp.full(batch, jnp.log(2)),
      ...         "mutual_information": jnp.zeros(batch),
      ...     }
      >>> images = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 8, 8, 1"), jnp.uint8)
      >>> program = jax.export.export(jax.jit(classify))(images)
      >>> metadata = Metadata(
      ...     label_names=("cat", "dog"),
      ...     image_shape=(8, 8, 1),
      ...     model="mlp",
      ...     step=100,
      ...     num_references=None,
      ...     outputs=("logits", "probs", "entropy", "mutual_information"),
      ...     platforms=program.platforms,
      ...     versions={"jax": jax.__version__},
      ... )
      >>> file = Path(tempfile.mkdtemp()) / "classifier.zip"
      >>> write_archive(file, program, metadata)
      >>> classifier = aj.load_exported(file)
      >>> classifier.label_names
      ('cat', 'dog')
      >>> classifier(np.zeros((3, 8, 8, 1), np.uint8)).probs.shape
      (3, 2)
      >>> classifier(np.zeros((30, 50, 3), np.uint8)).probs.shape  # a picture of another size, in color
      (1, 2)
    """
    file = storage_path("file", file)
    if not file.exists():
        raise UserError(f"no file '{file}'; pass one written by python -m anchor_jax.export")
    if file.suffix.lower() == ".onnx":
        raise UserError(f"'{file}' is an ONNX file; run it with onnxruntime, or export the run to a name without .onnx")
    try:
        with file.open("rb") as opened, zipfile.ZipFile(opened) as archive:
            metadata = _parse_metadata(json.loads(archive.read(METADATA)))
            program = jax.export.deserialize(bytearray(archive.read(PROGRAM)))
        _check_consistent(program, metadata)
    except Exception as error:  # zipfile, json and flatbuffers raise many types for corrupt bytes
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"cannot read '{file}' ({type(error).__name__}: {reason}); pass an intact file, written by "
            f"python -m anchor_jax.export with JAX {jax.__version__} or older"
        ) from error
    platform = jax.export.default_export_platform()
    if platform not in program.platforms:
        raise UserError(
            f"'{file}' is for {', '.join(program.platforms)}, but JAX runs on {platform}; export the run again with "
            f"--platforms={','.join((*program.platforms, platform))}"
        )
    return ExportedClassifier(metadata, _Program(program))


class _Program:
    """A program to be called: compiled by itself, or as a part of the program that traces it; can be pickled."""

    def __init__(self, program: Exported):
        self._program = program
        self._compiled = jax.jit(program.call, compiler_options=backends.compiler_options(jax.default_backend()))
        self._traced = jax.custom_batching.custom_vmap(program.call)
        self._traced.def_vmap(self._traced_vmap)

    def __call__(self, images: Any) -> dict[str, jax.Array]:
        """Return the outputs for images by name."""
        if isinstance(images, Tracer):
            return self._traced(images)
        with jax.ensure_compile_time_eval():  # inside a jit, compiler options are allowed only outside of its program
            return self._compiled(images)

    def __reduce__(self) -> tuple[Any, ...]:
        return _deserialized, (bytes(self._program.serialize()),)

    def _traced_vmap(self, axis_size: int, in_batched: Any, images: jax.Array) -> tuple[Any, Any]:
        del in_batched
        outputs = self._traced(images.reshape(-1, *images.shape[2:]))  # images do not affect each other
        outputs = {name: output.reshape(axis_size, -1, *output.shape[1:]) for name, output in outputs.items()}
        return outputs, dict.fromkeys(outputs, True)


def _deserialized(content: bytes) -> _Program:
    return _Program(jax.export.deserialize(bytearray(content)))


def _member(name: str) -> zipfile.ZipInfo:
    """Return an archive member without a timestamp."""
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o644 << 16  # permissions of the unpacked file
    return member


def _parse_metadata(content: Any) -> Metadata:
    """Convert the content of `metadata.json`, whose types are checked."""
    if content["format"] != FORMAT:
        raise ValueError(f"format must be {FORMAT!r}; got {content['format']!r}")
    content = {"preprocessing": None} | content  # not in version 0.1
    fields: dict[str, Any] = {field.name: content[field.name] for field in dataclasses.fields(Metadata)}
    for name in ("label_names", "outputs", "platforms"):
        if not isinstance(fields[name], list) or not all(isinstance(item, str) for item in fields[name]):
            raise ValueError(f"{name} must be a list of strings")
    checks.text("model", fields["model"])
    checks.instance("versions", fields["versions"], dict, "anchor_jax.export")
    checks.count("step", fields["step"], least=0)
    if fields["preprocessing"] is not None:
        fields["preprocessing"] = Preprocessing(**fields["preprocessing"])
    if fields["num_references"] is not None:
        checks.count("num_references", fields["num_references"])
    return Metadata(**fields)


def _check_consistent(program: Exported, metadata: Metadata) -> None:
    """Raise unless the inputs, outputs and platforms of the program are those in the metadata."""
    if program.nr_devices != 1:  # JAX 0.8 reads 0 from programs written by newer versions
        raise ValueError(f"{PROGRAM} is for {program.nr_devices} devices instead of 1")
    (images,), takes_images = program.in_avals, program.in_tree == jax.tree.structure(((0,), {}))
    outputs = jax.tree.unflatten(program.out_tree, program.out_avals)
    class_axis = (len(metadata.label_names),)
    expected = {name: class_axis if name in _OUTPUTS_PER_CLASS else () for name in metadata.outputs}
    if (
        not takes_images
        or (metadata.preprocessing and metadata.preprocessing.image_shape != metadata.image_shape)
        or (images.dtype, images.shape[1:]) != (jnp.uint8, metadata.image_shape)
        or {name: output.shape[1:] for name, output in outputs.items()} != expected
        or expected.keys() | {OPTIONAL_OUTPUT} != set(Classification._fields)
        or program.platforms != metadata.platforms
    ):
        raise ValueError(f"{PROGRAM} does not match {METADATA}")
