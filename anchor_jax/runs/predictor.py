"""A trained network as a function from raw images to classes and their uncertainty."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from anchor_jax.core import checks
from anchor_jax.core.anchoring import anchor
from anchor_jax.core.errors import UserError
from anchor_jax.core.inference import (
    TEMPERS,
    Apply,
    Classification,
    EncodedReferences,
    SplitModel,
    VotedClassification,
    classify_with_votes,
    encode_references,
    predict,
    single_vote,
)
from anchor_jax.data.augmentation import Normalization, normalize
from anchor_jax.runtime import mesh as mesh_lib

Images = np.ndarray | jax.Array


class CompiledNetwork(NamedTuple):
    """A network on raw images, each of its uses compiled for a mesh when it is first asked for.

    Images are uint8 `[B, H, W, C]` and divided over the devices.
    """

    # variables, uint8 [K, H, W, C] -> what the network has to know of them; None -> None for a standard network
    encode: Callable[[Any, np.ndarray | None], EncodedReferences | jax.Array | None]
    # (classes, temper) -> function of variables, encoded references, images; classes: rows of the logits, None: all
    poll: Callable[..., Callable[..., VotedClassification]]
    # classes -> function of variables, images, one reference for each of them
    poll_pairs: Callable[..., Callable[..., VotedClassification]]
    # variables, encoded references, images -> what the last layer sees, mean over references, float32 [B, features]
    features: Callable[..., jax.Array]
    # an array [B, ...] of the host or the devices -> the same, divided over the devices
    divided: Callable[[Images], jax.Array]


@dataclasses.dataclass(frozen=True)
class Predictor:
    """Classifies raw images with references of the run.

    Attributes:
      variables: what `model.apply` takes.
      references: uint8 `[R, H, W, C]`, of which the first K serve; None for a standard network.
      label_names: one name a class.
      image_shape: H, W and C of the images.
      network: compiled, see `compile_network`.
      num_devices: over which a batch is divided.
      batch_size: images at once, over all devices.
    """

    variables: Any
    references: np.ndarray | None
    label_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    network: CompiledNetwork
    num_devices: int
    batch_size: int

    def __call__(
        self, images: np.ndarray, num_references: int = 10, *, temper: Literal["duq"] | None = None
    ) -> Classification:
        """Classify images, each without regard to its neighbours.

        Args:
          images: uint8 `[B, H, W, C]`, as they are stored: not normalised.
          num_references: K, from 1 to the number saved with the run; a standard network uses none.
          temper: see `anchor_jax.classify`.

        Returns:
          `Classification` of NumPy arrays, B rows each.

        Raises:
          UserTypeError: the images are not uint8, or K is no integer.
          UserError: the images are not `[B, H, W, C]` of the run's shape, K is out of range, or `temper` unknown.
        """
        self._check(images)
        size = self.size_for(len(images))
        batches = ((images[start : start + size],) for start in range(0, len(images), size))
        answers = self.stream(batches, num_references, then=lambda poll: poll.classification, temper=temper)
        return tree_concatenate(answers)

    def stream(
        self,
        batches: Iterable[tuple[Images, ...]],
        num_references: int = 10,
        *,
        then: Callable[..., Any] = lambda poll: poll,
        classes: tuple[int, ...] | None = None,
        temper: Literal["duq"] | None = None,
    ) -> Iterator[Any]:
        """Classify images that come batch after batch; the references are encoded once for all of them.

        Args:
          batches: of images, as for a call, and of what belongs to them: `(images, *rest)`, `[B, ...]` each;
            `batch_size` at a time, fewer in the last.
          num_references: K, as for a call.
          then: `then(poll, *rest)`, done on the device before anything is fetched; each batch filled up to one
            size, so that it is compiled once.
          classes: rows of the logits to which the network is restricted before anything else is computed.
          temper: see `anchor_jax.classify`.

        Yields:
          What `then` makes of each batch, as NumPy arrays of its own length: a `VotedClassification` by default.

        Raises:
          UserError: as a call does.
        """
        checks.choice("temper", temper, TEMPERS)
        references = self.network.encode(self.variables, self.first_references(num_references))
        ask = self.network.poll(classes, temper)
        return self._in_turn(batches, lambda images, *rest: then(ask(self.variables, references, images), *rest))

    def stream_pairs(
        self,
        batches: Iterable[tuple[Images, ...]],
        *,
        then: Callable[..., Any] = lambda poll: poll,
        classes: tuple[int, ...] | None = None,
    ) -> Iterator[Any]:
        """As `stream`, with a reference of its own for each image: `(images, references, *rest)`."""
        ask = self.network.poll_pairs(classes)
        return self._in_turn(batches, lambda images, refs, *rest: then(ask(self.variables, images, refs), *rest))

    def stream_features(self, batches: Iterable[tuple[Images, ...]], num_references: int = 10) -> Iterator[Any]:
        """As `stream`, what the last layer sees, its mean over references: float32 `[B, features]`, with the rest."""
        references = self.network.encode(self.variables, self.first_references(num_references))
        return self._in_turn(
            batches, lambda images, *rest: (self.network.features(self.variables, references, images), *rest)
        )

    def first_references(self, num_references: int) -> np.ndarray | None:
        """The first K references of the run, uint8 `[K, H, W, C]`; None for a standard network."""
        checks.integer("num_references", num_references)
        if self.references is None:
            return None
        if not 1 <= num_references <= len(self.references):
            raise UserError(
                f"num_references must lie in 1..{len(self.references)}, the references saved with the run "
                f"(config.evaluation.saved_references); got {num_references}"
            )
        return self.references[:num_references]

    def size_for(self, num_images: int) -> int:
        """Images in a batch, where there are so many in all."""
        # few images do not pay for a whole batch; powers of two keep the number of compilations small
        full = math.ceil(self.batch_size / self.num_devices)
        return min(full, _power_of_two(num_images / self.num_devices)) * self.num_devices

    def _in_turn(self, batches, ask) -> Iterator[Any]:
        """What `ask` makes of each batch, fetched while the device is at the next: no more than two are on it."""

        def fetched(answer, num):
            return jax.tree.map(lambda part: part[:num], mesh_lib.device_get_global(answer))

        pending, size = (), 0
        for batch in batches:
            num = len(batch[0])
            self._check(batch[0])
            size = max(size, self.size_for(num))
            answer = ask(*(self.network.divided(pad_rows(part, size)) for part in batch))
            if pending:
                yield fetched(*pending)
            pending = answer, num
        if pending:
            yield fetched(*pending)

    def _check(self, images):
        checks.stored_images("images", images, self.image_shape)


def tree_concatenate(parts: Iterable[Any]) -> Any:
    """What was found for batches, trees of NumPy arrays, as one tree for all of them."""
    return jax.tree.map(lambda *columns: np.concatenate(columns), *parts)


def pad_rows(part: Images, size: int) -> Images:
    """An array with rows of zeros up to a number of them; where its rows are, host or device, it stays."""
    missing = size - len(part)
    pad = jnp.pad if isinstance(part, jax.Array) else np.pad
    return pad(part, ((0, missing), *[(0, 0)] * (part.ndim - 1))) if missing else part


def _power_of_two(number: float) -> int:
    """The least power of two that is no less than a number above 0, at least 1."""
    return 2 ** max(math.ceil(math.log2(number)), 0)


def compile_network(
    model: nn.Module,
    normalization: Normalization,
    mesh: Mesh,
    *,
    anchored: bool,
    inputs_at_once: int,
    chunk_size: int | None = None,
) -> CompiledNetwork:
    """A network on raw images, compiled for the mesh.

    Args:
      model: see `anchor_jax.models.create`.
      normalization: of its inputs.
      mesh: over which images are divided.
      anchored: whether the network takes references; a standard one takes None in their place.
      inputs_at_once: pairs of image and reference on one device at once, where `chunk_size` does not say how many.
      chunk_size: references at once.
    """

    def chunk(images):
        return chunk_size or max(inputs_at_once // len(images), 1)

    def encode(variables, references):
        network, references = _network_of(model), normalize(references, normalization)
        return encode_references(network, variables, references) if isinstance(network, SplitModel) else references

    def poll_batch(classes, temper, variables, references, images):
        options = {"classes": classes, "chunk_size": chunk(images), "temper": temper}
        return classify_images(model, normalization, variables, references, images, **options)

    def poll_pairs(classes, variables, images, references):
        x, references = normalize(images, normalization), normalize(references, normalization)
        return single_vote(_network_of(model, classes)(variables, anchor(x, references)))

    def features(variables, references, images):
        network, x = _network_of(model, last="features"), normalize(images, normalization)
        if not anchored:
            return network(variables, x)
        return predict(network, variables, x, references, chunk_size=chunk(images)).mean

    def mapped(function, num_same, num_split):
        specs = (mesh_lib.REPLICATED,) * num_same + (mesh_lib.SHARDED,) * num_split
        return mesh_lib.pmapped(function, mesh, in_specs=specs, out_specs=mesh_lib.SHARDED)

    compiled_encode = mesh_lib.pmapped(encode, mesh, in_specs=mesh_lib.REPLICATED, out_specs=mesh_lib.REPLICATED)
    return CompiledNetwork(
        encode=compiled_encode if anchored else lambda variables, references: None,
        poll=cache(lambda classes, temper: mapped(partial(poll_batch, classes, temper), 2, 1)),
        poll_pairs=cache(lambda classes: mapped(partial(poll_pairs, classes), 1, 2)),
        features=mapped(features, 2, 1),
        divided=partial(mesh_lib.shard_batch, mesh=mesh),
    )


def classify_images(
    model: nn.Module,
    normalization: Normalization,
    variables: Any,
    references: EncodedReferences | jax.Array | None,
    images: jax.Array,
    *,
    classes: tuple[int, ...] | None = None,
    chunk_size: int | None = None,
    temper: Literal["duq"] | None = None,
) -> VotedClassification:
    """What a network says of raw images, on one device; how many they are may be symbolic.

    Args:
      model: see `anchor_jax.models.create`.
      normalization: of its inputs.
      variables: what `model.apply` takes.
      references: what `Network.encode` gives of them; None for a standard network.
      images: uint8 `[B, H, W, C]`.
      classes: rows of the logits to which the network is restricted; None: all.
      chunk_size: see `anchor_jax.classify`.
      temper: see `anchor_jax.classify`.
    """
    network, x = _network_of(model, classes), normalize(images, normalization)
    if references is None:
        return single_vote(network(variables, x))
    return classify_with_votes(network, variables, x, references, chunk_size=chunk_size, temper=temper)


def _network_of(model: nn.Module, classes: tuple[int, ...] | None = None, last: str = "rest") -> Apply | SplitModel:
    """The model as a function of variables and inputs, cut after its first layer where it says what that is.

    Its last part is the method `last`; its logits are those of `classes`, of all by default.
    """

    def apply(variables, inputs, method=None) -> Any:
        outputs: Any = model.apply(variables, inputs, method=method)
        return outputs if classes is None or method == "first_layer" else outputs[..., np.array(classes)]

    if not hasattr(model, "first_layer"):
        return apply if last == "rest" else partial(apply, method=last)
    return SplitModel(partial(apply, method="first_layer"), partial(apply, method=last))
