"""Data sets that one string names, as a command line gives them."""

import os
import re
from pathlib import Path
from typing import Any

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data.anomalies import photographs
from anchor_jax.data.dataset import absolute
from anchor_jax.data.sources import open_images, open_stream
from anchor_jax.data.streaming import MODES, EvalDataset, drop_empty_classes, eval_dataset, match_channels, remap_labels

# how a spec is written -> its kind, what it names, and its split; a split never holds "/", a path may hold "@"
_FORMS = {
    "tfds:NAME[@SPLIT]": r"(tfds):([^@]+)(?:@(.+))?",
    "folder:PATH[@SPLIT]": r"(folder):(.+?)(?:@([^@/]+))?",
    "npz:PATH[@SPLIT]": r"(npz):(.+?)(?:@([^@/]+))?",
    "images:PATH": r"(images):(.+)()",
    "digits[@SPLIT]": r"(digits)()(?:@(.+))?",
    "photographs": r"(photographs)()()",
}

# TFDS keeps every corruption and severity as a set of its own, and takes the mildest of the first where none is named
CORRUPTED_TFDS = {"cifar10_corrupted": "test", "imagenet2012_corrupted": "validation"}  # name -> split

# ImageNet-A and -R have 200 classes, to which the logits are restricted; TFDS names all 1,000 of ImageNet
_SUBSETS = ("imagenet_a", "imagenet_r")


def open_dataset(
    spec: str,
    *,
    image_shape: tuple[int, ...],
    label_names: tuple[str, ...] | None = None,
    default_split: str = "test",
    tfds_dir: str | os.PathLike[str] = "",
    crop_fraction: float = 1.0,
) -> EvalDataset:
    """Opens the data set that a string names, its images made like those of a run.

    Specs:
      tfds:NAME[@SPLIT]: a prepared TensorFlow Datasets set, NAME with its configuration if it has any.
      folder:PATH[@SPLIT]: `PATH/SPLIT/class_name/image.png`; without a split `PATH/class_name/image.png`, too.
      npz:PATH[@SPLIT]: a file with the arrays `x_SPLIT` and `y_SPLIT`.
      images:PATH: all images below a folder, of the one class "image".
      digits[@SPLIT]: scikit-learn's digits.
      photographs: patches of scikit-learn's photographs, see `photographs`.

    Args:
      spec: one of these.
      image_shape: H, W and C of the run's images. Where H = W, image files and tfds sets are resized as `load` does;
        grey images become RGB and RGB grey where C asks for it.
      label_names: of the run, if labels are to be counted as the run does; None: as the set does.
      default_split: the split where the spec names none.
      tfds_dir: where prepared sets are (default: $TFDS_DATA_DIR, then ~/tensorflow_datasets).
      crop_fraction: of the run, for what is resized; see `load`.

    Returns:
      `EvalDataset` named after the data set, and after the split if it is given.

    Raises:
      UserTypeError: an argument is of the wrong type.
      UserError: a malformed spec, a set that `open_stream` refuses, images of another shape, other classes.
    """
    checks.text("spec", spec)
    checks.image_shape("image_shape", image_shape)
    if label_names is not None:
        checks.several("label_names", label_names)
    stream = match_channels(_opened(spec, image_shape, default_split, tfds_dir, crop_fraction), image_shape)
    return remap_labels(stream, label_names) if label_names else stream


def _opened(
    spec: str,
    image_shape: tuple[int, ...],
    default_split: str,
    tfds_dir: str | os.PathLike[str],
    crop_fraction: float,
) -> EvalDataset:
    kind, what, given_split = _parsed(spec)
    split = given_split or default_split
    title, like = _title(kind, what, given_split), matching_images(image_shape, crop_fraction)
    if kind == "tfds":
        _check_configuration(what)
        stream = open_stream("tfds", split, name=what, path=tfds_dir, title=title, **like)
        return drop_empty_classes(stream) if re.split("[/:]", what)[0] in _SUBSETS else stream
    if kind == "folder":
        folder, split = (absolute(what), split) if given_split else _folder_and_split(what, split)
        return open_stream("folder", split, path=folder, title=title, **like)
    if kind == "images":
        return open_images(what, title=title, **like)
    if kind == "photographs":
        return eval_dataset(photographs(image_shape), title)
    return open_stream(kind, split, path=what, title=title)


def matching_images(image_shape: tuple[int, ...], crop_fraction: float = 1.0) -> dict[str, Any]:
    """What `open_stream` needs to make images as those of a run: resized if they are square, grey or RGB."""
    height, width, channels = image_shape
    resized = {"image_size": height, "crop_fraction": crop_fraction} if height == width else {"image_size": 0}
    return {**resized, "mode": MODES.get(channels, "")}


def _parsed(spec: str) -> tuple[str, str, str]:
    """Kind, name or path, and split; the last two may be empty."""
    for pattern in _FORMS.values():
        if match := re.fullmatch(pattern, spec):
            kind, what, split = match.groups(default="")
            return kind, what, split
    raise UserError(f"unknown data set '{spec}'; allowed: {', '.join(_FORMS)}")


def _title(kind: str, what: str, split: str) -> str:
    if kind == "tfds":
        name = what.split(":")[0].replace("/", "-")
    elif kind == "npz":
        name = Path(what).stem
    else:
        name = Path(os.path.abspath(what)).name if what else kind
    return f"{name}-{split}" if split else name


def _check_configuration(name: str) -> None:
    if name.split(":")[0] in CORRUPTED_TFDS:
        raise UserError(
            f"tfds data set '{name}' names neither corruption nor severity; give the whole name, such as "
            f"'tfds:{name.split(':')[0]}/fog_3', or the set to the suite of corruptions"
        )


def _folder_and_split(path: str, default_split: str) -> tuple[Path, str]:
    """The folder of splits and the split; without that split in it, a folder of classes is itself one."""
    folder = absolute(path)
    return (folder, default_split) if (folder / default_split).is_dir() else (folder.parent, folder.name)
