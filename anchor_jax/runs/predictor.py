"""A trained run as a function from raw images to class probabilities and their uncertainty."""

# jax.numpy has partly unknown types.
# pyright: reportUnknownMemberType=false

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Concatenate, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.core import Tracer

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError, UserTypeError
from anchor_jax.core.inference import TEMPERS, Classification, VotedClassification
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.data.preprocessing import Preprocessing
from anchor_jax.runs.network import Classes, CompiledNetwork, Images, References, Temper
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.runtime.settings import gather_from_devices, with_own_settings

# A function of the votes for a batch and of the arrays that accompany its images; its result is fetched to the host.
Then: TypeAlias = Callable[Concatenate[VotedClassification, ...], Any]


def _votes(votes: VotedClassification, *_: jax.Array) -> VotedClassification:
    return votes


@short_repr
@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no single truth value; hashable, for jit
class Predictor:
    """A classifier of raw images that uses the references of its run; see `anchor_jax.load_predictor`.

    It can be pickled and copied; a copy is compiled anew, for as many devices.

    >>> import anchor_jax as aj
    >>> import jax, numpy as np
    >>> from anchor_jax.runs.network import CompiledNetwork
    >>> model = aj.models.create("mlp", num_classes=3, hidden=(4,))  # an untrained network, instead of a run
    >>> network = CompiledNetwork(
    ...     model, aj.data.Normalization((0.5,), (0.5,)), aj.parallel.mesh(1), anchored=True, inputs_at_once=8
    ... )
    >>> predictor = aj.Predictor(
    ...     variables=model.init(jax.random.key(0), np.zeros((1, 6, 6, 2))),
    ...     references=np.full((10, 6, 6, 1), 128, np.uint8),
    ...     label_names=("ant", "bee", "cat"),
    ...     image_shape=(6, 6, 1),
    ...     network=network,
    ...     num_devices=1,
    ...     batch_size=8,
    ... )
    >>> answer = predictor(np.zeros((5, 6, 6, 1), np.uint8), num_references=4)
    >>> answer.probs.shape, answer.mutual_information.shape
    ((5, 3), (5,))

    Attributes:
      variables: passed to `model.apply`.
      references: uint8 `[R, H, W, C]`; a prediction uses the first K. None for a standard network.
      label_names: one name per class.
      image_shape: (H, W, C) of the images.
      network: the compiled network.
      num_devices: number of devices over which a batch is sharded.
      batch_size: maximum number of images evaluated at once, over all devices.
      preprocessing: of pictures; None resizes and crops them to `image_shape`.
    """

    variables: Any
    references: npt.NDArray[np.uint8] | None
    label_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    network: CompiledNetwork
    num_devices: int
    batch_size: int
    preprocessing: Preprocessing | None = None

    def __post_init__(self):
        object.__setattr__(self, "label_names", checks.several("label_names", self.label_names))
        object.__setattr__(self, "image_shape", checks.image_shape("image_shape", self.image_shape))

    @property
    def preprocess(self) -> Preprocessing:
        """The steps from pictures to images, which are those of the data loader in training and evaluation."""
        height, width, channels = self.image_shape
        return self.preprocessing or Preprocessing(height, width, channels)

    @with_own_settings
    def __call__(self, images: Any, num_references: int = 10, *, temper: Temper = None) -> Classification:
        """Classify images; each prediction is independent of the other images.

        Args:
          images: uint8 `[B, H, W, C]` as stored, not normalized; or pictures of any size, one or several: paths, bytes
            of image files, PIL images, arrays uint8 `[h, w]` or `[h, w, c]`. See `preprocess`.
          num_references: K, from 1 to the number saved with the run; ignored by a standard network.
          temper: see `anchor_jax.classify`.

        Returns:
          `Classification` of NumPy arrays with B rows.

        Raises:
          UserTypeError: an image has another type or dtype or is traced, or K is not an integer.
          UserError: a picture cannot be read or converted, K is out of range, or `temper` is unknown.
        """
        if isinstance(images, Tracer):
            raise UserTypeError(
                "images must be arrays with values, as their classification is fetched to the host; call the predictor "
                "outside of jit and vmap, or export the run: the result of load_exported works inside"
            )
        images = gather_from_devices(self.preprocess.batch("images", images))
        size = self.size_for(len(images))
        batches = ((images[start : start + size],) for start in range(0, len(images), size))
        answers = self.stream(batches, num_references, then=lambda votes: votes.classification, temper=temper)
        return tree_concatenate(answers)

    def stream(
        self,
        batches: Iterable[tuple[Images, ...]],
        num_references: int = 10,
        *,
        then: Then = _votes,
        classes: Classes = None,
        temper: Temper = None,
        encoded: References = None,
    ) -> Iterator[Any]:
        """Classify a stream of batches, with references that are encoded once.

        Args:
          batches: tuples `(images, *rest)` of arrays `[B, ...]`: images as for a call, and anything that belongs to
            them. B is `size_for(...)` or less.
          num_references: K, as for a call.
          then: `then(votes, *rest)` runs on the devices before the result is fetched. Batches are padded to one size,
            so that it is compiled once.
          classes: restrict the logits to these classes before anything else is computed; None for all.
          temper: see `anchor_jax.classify`.
          encoded: references to use in place of the first K of the run, see `CompiledNetwork.encode_shown`.

        Yields:
          The result of `then` for each batch, as NumPy arrays without the padding; a `VotedClassification` by default.

        Raises:
          UserError: same as for a call.
        """
        checks.choice("temper", temper, TEMPERS)
        classes = None if classes is None else checks.several("classes", classes)
        references = self._encode_references(num_references) if encoded is None else encoded

        def classify(images: jax.Array, *rest: jax.Array) -> Any:
            votes = self.network.classify(self.variables, references, images, classes=classes, temper=temper)
            return then(votes, *rest)

        return self._pipeline(batches, classify)

    def stream_pairs(
        self,
        batches: Iterable[tuple[Images, ...]],
        *,
        then: Then = _votes,
        classes: Classes = None,
    ) -> Iterator[Any]:
        """Same as `stream`, with one reference for each image: batches are `(images, references, *rest)`."""

        def classify(images: jax.Array, references: jax.Array, *rest: jax.Array) -> Any:
            return then(self.network.classify_pairs(self.variables, images, references, classes=classes), *rest)

        return self._pipeline(batches, classify)

    def stream_features(self, batches: Iterable[tuple[Images, ...]], num_references: int = 10) -> Iterator[Any]:
        """Same as `stream`, for the inputs of the last layer: yields `(features, *rest)`, float32 `[B, features]`."""
        references = self._encode_references(num_references)

        def features(images: jax.Array, *rest: jax.Array) -> Any:
            return self.network.features(self.variables, references, images), *rest

        return self._pipeline(batches, features)

    def stream_pair_features(self, batches: Iterable[tuple[Images, ...]]) -> Iterator[Any]:
        """Compute the features of a stream of images, each with a reference of its own, which may be masked.

        Args:
          batches: tuples `(images, references, mask, *rest)`; the mask is bool `[B]`, true where a reference is zeroed.

        Yields:
          `(features, *rest)`, float32 `[B, features]`.
        """

        def features(images: jax.Array, references: jax.Array, mask: jax.Array, *rest: jax.Array) -> Any:
            return self.network.pair_features(self.variables, images, references, mask), *rest

        return self._pipeline(batches, features)

    def first_references(self, num_references: int) -> npt.NDArray[np.uint8] | None:
        """Return the first K references of the run, uint8 `[K, H, W, C]`; None for a standard network."""
        num_references = checks.integer("num_references", num_references)
        if self.references is None:
            return None
        if not 1 <= num_references <= len(self.references):
            raise UserError(
                f"num_references must lie in 1..{len(self.references)}, the references saved with the run "
                f"(config.evaluation.saved_references); got {num_references}"
            )
        return self.references[:num_references]

    def size_for(self, num_images: int) -> int:
        """Return the batch size for a number of images: `batch_size`, or less if there are fewer images."""
        # powers of two limit the number of compilations
        full = math.ceil(self.batch_size / self.num_devices)
        return min(full, _power_of_two(num_images / self.num_devices)) * self.num_devices

    def _encode_references(self, num_references: int) -> References:
        references = self.first_references(num_references)
        return self.network.encode(self.variables, references)

    def _pipeline(self, batches: Iterable[tuple[Images, ...]], function: Callable[..., Any]) -> Iterator[Any]:
        """Fetch the result for one batch while the devices compute the next; at most two batches are on them."""

        def fetch(result: Any, num: int) -> Any:
            def without_padding(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
                return part[:num]

            return jax.tree.map(without_padding, mesh_lib.device_get_global(result))

        pending, size = None, 0
        for batch in batches:
            num = len(batch[0])
            self._check(batch[0])
            size = max(size, self.size_for(num))
            result = function(*(self.network.shard(pad_rows(part, size)) for part in batch))
            if pending is not None:
                yield fetch(*pending)
            pending = result, num
        if pending is not None:
            yield fetch(*pending)

    def _check(self, images: Images) -> None:
        checks.stored_images("images", images, self.image_shape)


def tree_concatenate(parts: Iterable[Any]) -> Any:
    """Concatenate the results of batches, trees of NumPy arrays, along their first axis."""

    def concatenate(*arrays: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate(arrays)

    return jax.tree.map(concatenate, *parts)


def pad_rows(part: Images, size: int) -> Images:
    """Pad an array with rows of zeros to a number of rows; it stays on its host or device."""
    missing = size - len(part)
    if not missing:
        return part
    widths = ((0, missing), *[(0, 0)] * (part.ndim - 1))
    return jnp.pad(part, widths) if isinstance(part, jax.Array) else np.pad(part, widths)


def _power_of_two(number: float) -> int:
    """Return the smallest power of two that is at least a positive number, and at least 1."""
    return 2 ** max(math.ceil(math.log2(number)), 0)
