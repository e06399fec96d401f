"""What a plan needs to know of a training set: the number and shape of its images, and the number of classes."""

import math
from typing import NamedTuple

from anchor_jax.config import DataConfig
from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data.labels import read_class_names
from anchor_jax.data.modes import MODES
from anchor_jax.data.sources import SOURCES, check_image_size


class DataFacts(NamedTuple):
    """The size of a training set.

    Attributes:
      num_examples: N.
      num_classes: number of classes.
      image_shape: (H, W, C).
    """

    num_examples: int
    num_classes: int
    image_shape: tuple[int, int, int]


# The datasets that the configs name, by source and name; images of ImageNet differ in size. Sources: the catalog of
# tensorflow-datasets, and the first four fifths of scikit-learn's digits.
KNOWN = {
    ("digits", ""): DataFacts(1_437, 10, (8, 8, 1)),
    ("tfds", "cifar10"): DataFacts(50_000, 10, (32, 32, 3)),
    ("tfds", "cifar100"): DataFacts(50_000, 100, (32, 32, 3)),
    ("tfds", "imagenet2012"): DataFacts(1_281_167, 1_000, (0, 0, 3)),
}
_FLAGS = "--num_examples, --num_classes and --image_shape"


def data_facts(
    config: DataConfig, *, num_examples: int = 0, num_classes: int = 0, image_shape: tuple[int, ...] = ()
) -> DataFacts:
    """Return the size of the training set of a config, without opening it.

    Args:
      config: the section `data` of a config.
      num_examples: of a dataset that is not known, or of another split; 0: as known.
      num_classes: the same.
      image_shape: (H, W, C), the same, before images are resized to `config.image_size`; (): as known.

    Raises:
      UserError: the dataset is not known and an argument is missing, or images have no size or are not resized.
    """
    checks.known("data source", config.source, SOURCES)
    if image_shape and (len(image_shape) != 3 or min(image_shape) < 1):
        given = ",".join(map(str, image_shape))
        raise UserError(f"--image_shape must be three positive integers, H,W,C; got {given}")
    if config.classes:
        num_classes = len(read_class_names(config.classes))
    known = KNOWN.get((config.source, config.name if config.source == "tfds" else ""))
    if known and config.train_split != "train" and not num_examples:
        raise UserError(f"the size of config.data.train_split='{config.train_split}' is not known; give --num_examples")
    if not known and not (num_examples and num_classes and (image_shape or config.image_size)):
        of = " ".join(filter(None, (config.source, config.name or config.path)))
        raise UserError(f"the size of the training set '{of}' is not known without opening it; give {_FLAGS}")
    known = known or DataFacts(0, 0, (0, 0, 3))
    height, width, channels = image_shape or known.image_shape
    if not SOURCES[config.source].is_encoded:
        check_image_size((height, width, channels), config.source, config.image_size)
    if config.image_size:
        height = width = config.image_size
    if config.mode in MODES.values():
        channels = len(config.mode)
    if not (height and width):
        raise UserError("images differ in size; set config.data.image_size")
    num_examples = num_examples or known.num_examples
    num_examples -= math.ceil(num_examples * config.validation_fraction)
    return DataFacts(num_examples, num_classes or known.num_classes, (height, width, channels))
