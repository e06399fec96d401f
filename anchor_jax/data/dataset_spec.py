"""Open a dataset named by one string, as on a command line."""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data import orientation as orientations
from anchor_jax.data import resampling
from anchor_jax.data.class_mapping import drop_empty_classes, remap_labels
from anchor_jax.data.eval_dataset import EvalDataset, eval_dataset, match_channels
from anchor_jax.data.files import reading_errors
from anchor_jax.data.local_copies import local_data
from anchor_jax.data.modes import mode_of
from anchor_jax.data.sample_photographs import photographs
from anchor_jax.data.sources import SOURCES, open_stream
from anchor_jax.data.sources.folder import open_images, subfolders
from anchor_jax.runtime.object_storage import is_address, is_remote
from anchor_jax.runtime.paths import absolute_path, absolute_storage_path, printable

# what locates a dataset of a source -> form and pattern of location and split; the split of a path contains no "/", so
# that the path itself may contain "@"
_FORMS = {
    "name": (":NAME[@SPLIT]", r":([^@]+)(?:@(.+))?"),
    "path": (":PATH[@SPLIT]", r":(.+?)(?:@([^@/]+))?"),
    "": ("[@SPLIT]", r"()(?:@(.+))?"),
}
# form of a spec -> pattern of its kind, location and split
_SPECS = {
    kind + form: f"({kind}){pattern}"
    for kind, source in SOURCES.items()
    for form, pattern in [_FORMS[source.located_by]]
} | {"images:PATH": r"(images):(.+)()", "photographs": r"(photographs)()()"}

# TFDS has one dataset per corruption and severity; without a configuration it opens the first corruption at severity 1
CORRUPTED_TFDS = {"cifar10_corrupted": "test", "imagenet2012_corrupted": "validation"}  # name -> split

# ImageNet-A and ImageNet-R have 200 classes, to which logits are restricted; TFDS lists all 1,000 of ImageNet
_IMAGENET_SUBSETS = ("imagenet_a", "imagenet_r")


def open_dataset(
    spec: str,
    *,
    image_shape: tuple[int, ...],
    label_names: tuple[str, ...] | None = None,
    default_split: str = "test",
    tfds_dir: str | os.PathLike[str] = "",
    crop_fraction: float = 1.0,
    interpolation: str = resampling.AUTO,
    resizing: str = resampling.AUTO,
    orientation: str = orientations.AUTO,
    channels: int = 0,
) -> EvalDataset:
    """Open the dataset that a string names, with images and labels like those of a run.

    Specs:
      tfds:NAME[@SPLIT]: a prepared TensorFlow Datasets dataset; NAME includes the configuration, if any.
      folder:PATH[@SPLIT]: `PATH/SPLIT/class_name/image.png`; without a split also `PATH/class_name/image.png`.
      npz:PATH[@SPLIT]: a file with the arrays `x_SPLIT` and `y_SPLIT`.
      digits[@SPLIT]: scikit-learn's digits.
      images:PATH: all images in a folder, at any depth, with the single class "image".
      photographs: patches of scikit-learn's photographs, see `photographs`.

    Args:
      spec: the string.
      image_shape: H, W and C of the run's images. Image files and TFDS images are resized to it as in `load`.
        Images are converted to grayscale or RGB, according to C = 1 or 3.
      label_names: class names of the run, to which the labels are mapped; None keeps the dataset's own labels.
      default_split: split of a spec without one.
      tfds_dir: folder of prepared datasets (default: $TFDS_DATA_DIR, or else ~/tensorflow_datasets).
      crop_fraction: of the run, for images that are resized; see `load`.
      interpolation: of the run, for images that are resized; see `load`.
      resizing: of the run, for images that are resized; see `load`.
      orientation: of the run, see `load`.
      channels: C, only required if H, W and C look like C, H and W, such as (1, 128, 9).

    Returns:
      `EvalDataset`, named after the dataset, and after the split if the spec has one.

    Raises:
      UserTypeError: an argument has the wrong type.
      UserError: the spec is malformed, `open_stream` fails, or images or classes do not match the run.

    Example:
      >>> import anchor_jax as aj
      >>> test = aj.data.open_dataset("digits@test", image_shape=(8, 8, 3))  # grayscale, repeated in 3 channels
      >>> test.name, test.image_shape
      ('digits-test', (8, 8, 3))
      >>> aj.data.open_dataset("photographs", image_shape=(16, 16, 3)).label_names
      ('china', 'flower')
    """
    checks.text("spec", spec)
    image_shape = checks.image_shape("image_shape", image_shape, channels)
    if label_names is not None:
        label_names = checks.several("label_names", label_names)
    interpolation, resizing = resampling.check_interpolation(interpolation), resampling.check_resizing(resizing)
    orientation = orientations.check_orientation(orientation)
    options = image_options(image_shape, crop_fraction, interpolation, resizing, orientation)
    dataset = _open(_parse(spec), image_shape, default_split, tfds_dir, options)
    dataset = match_channels(dataset, image_shape)
    return remap_labels(dataset, label_names) if label_names else dataset


def image_options(
    image_shape: tuple[int, ...],
    crop_fraction: float = 1.0,
    interpolation: str = resampling.AUTO,
    resizing: str = resampling.AUTO,
    orientation: str = orientations.AUTO,
) -> dict[str, Any]:
    """Return the arguments of `open_stream` for images like those of a run: resized, grayscale or RGB."""
    height, width, _ = image_shape
    return {
        "image_size": height if height == width else (height, width),
        "crop_fraction": crop_fraction,
        "interpolation": interpolation,
        "resizing": resizing,
        "orientation": orientation,
        "mode": mode_of(image_shape),
    }


def more_channels(image_shape: tuple[int, ...]) -> int:
    """Return the number of channels of a run's images if arrays must not have as many without being told; else 0."""
    return image_shape[-1] if image_shape[-1] > checks.MAX_CHANNELS else 0


class _Spec(NamedTuple):
    """A parsed spec; `location` and `split` may be empty."""

    kind: str
    location: str
    split: str

    def title(self) -> str:
        """Return the name of the dataset, such as "cifar10-test"."""
        if self.kind == "tfds":
            name = self.location.split(":")[0].replace("/", "-")
        elif not self.location:
            name = self.kind
        else:
            path = absolute_storage_path(f"{self.kind}:PATH", self.location)
            is_file = self.kind == "npz" if is_remote(path) else os.path.isfile(path)
            name = printable(path.stem if is_file else path.name)  # reports, figures and archives take UTF-8 alone
        return f"{name}-{self.split}" if self.split else name


def _parse(spec: str) -> _Spec:
    for pattern in _SPECS.values():
        if match := re.fullmatch(pattern, spec):
            return _Spec(*match.groups(default=""))
    hint = ""
    if os.path.isdir(os.path.expanduser(spec)):
        hint = f"; for this folder give images:{spec}, or folder:{spec} if it has one subfolder per class"
    raise UserError(f"unknown dataset '{spec}'; allowed: {', '.join(_SPECS)}{hint}")


def _open(
    spec: _Spec,
    image_shape: tuple[int, ...],
    default_split: str,
    tfds_dir: str | os.PathLike[str],
    options: dict[str, Any],
) -> EvalDataset:
    kind, location, split = spec.kind, spec.location, spec.split or default_split
    title = spec.title()
    if is_address(location):
        location = str(local_data(f"{kind}:PATH", location))
    if kind == "photographs":
        return eval_dataset(photographs(image_shape), title)
    if kind == "images":
        return open_images(location, title=title, **options)
    if kind == "tfds":
        return _open_tfds(location, split, tfds_dir, title, options)
    if kind == "folder":
        location, split = (location, split) if spec.split else _split_of_folder(location, split)
        _check_has_classes(absolute_path("folder:PATH", location) / split)
    source = SOURCES[kind]
    located: dict[str, Any] = {source.located_by: location} if source.located_by else {}
    located |= options if source.is_encoded else {"channels": more_channels(image_shape)}
    return open_stream(kind, split, title=title, **located)


def _open_tfds(
    name: str, split: str, tfds_dir: str | os.PathLike[str], title: str, options: dict[str, Any]
) -> EvalDataset:
    base = name.split(":")[0]
    if base in CORRUPTED_TFDS:
        raise UserError(
            f"TFDS dataset '{name}' needs a corruption and a severity; give one, such as 'tfds:{base}/fog_3', or use "
            "the suite 'corruptions' for all of them"
        )
    dataset = open_stream("tfds", split, name=name, path=tfds_dir, title=title, **options)
    return drop_empty_classes(dataset) if re.split("[/:]", name)[0] in _IMAGENET_SUBSETS else dataset


def _check_has_classes(split: Path) -> None:
    """Raise a `UserError` for a folder without classes; one that cannot be opened has better errors elsewhere."""
    if not os.path.isdir(split):
        return
    with reading_errors(f"folder '{split}'", f"give images:{split} or another folder"):
        num = len(subfolders(split))
    if num < 2:
        raise UserError(
            f"'{split}' must have at least 2 class folders; got {num}; for images without classes, such as anomalies, "
            f"give images:{split}"
        )


def _split_of_folder(path: str, default_split: str) -> tuple[str, str]:
    """Return a folder of splits, and the split; a folder without the default split is itself a split."""
    folder = absolute_path("folder:PATH", path)
    if os.path.isdir(folder / default_split):
        return str(folder), default_split
    return str(folder.parent), folder.name
