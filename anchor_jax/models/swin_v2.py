"""Swin Transformer V2 (Liu et al. 2022, arXiv 2111.09883), as torchvision has it."""

import math
from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from anchor_jax.core.errors import UserError
from anchor_jax.models.layers import (
    Classifier,
    FeedForward,
    StochasticDepth,
    depth_rates,
    global_mean,
    maybe_remat,
    patches,
    transformer_kernel_init,
)

MAX_SCALE = 100.0  # of the cosines
MASKED = -100.0  # what is added where tokens that a shift has brought together must not see each other

Array = TypeVar("Array", jax.Array, np.ndarray)

layer_norm = partial(nn.LayerNorm, epsilon=1e-5)


class WindowAttention(nn.Module):
    """Tokens look at those in their window: scaled cosines, and a continuous bias of their relative position."""

    num_heads: int
    window: int
    pretrained_window: int
    is_shifted: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, D]` -> `[B, H, W, D]`; filled up with zeros to whole windows, and cut again."""
        height, width, features = x.shape[1:]
        missing = [-size % self.window for size in (height, width)]
        x = jnp.pad(x, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
        size = (x.shape[1], x.shape[2])
        # one window needs no shift
        step = self.window // 2 if self.is_shifted else 0
        shift = (step if self.window < size[0] else 0, step if self.window < size[1] else 0)
        bias = self._position_bias()
        if any(shift):
            x = jnp.roll(x, [-s for s in shift], axis=(1, 2))
            bias = bias + shift_mask(size, self.window, shift)[:, None]

        windows = window_partition(x, self.window)
        query, key, value = self._queries_keys_values(windows)
        scale = self.param("logit_scale", nn.initializers.constant(math.log(10)), (self.num_heads, 1, 1))
        cosines = jnp.einsum("bwqhd,bwkhd->bwhqk", unit(query), unit(key), preferred_element_type=jnp.float32)
        logits = cosines * jnp.exp(jnp.minimum(scale, math.log(MAX_SCALE))) + bias
        attention = nn.softmax(logits).astype(self.dtype)
        attended = jnp.einsum("bwhqk,bwkhd->bwqhd", attention, value).reshape(windows.shape)
        y = nn.Dense(features, dtype=self.dtype, kernel_init=transformer_kernel_init, name="projection")(attended)

        y = window_reverse(y, size, self.window)
        if any(shift):
            y = jnp.roll(y, shift, axis=(1, 2))
        return y[:, :height, :width]

    def _queries_keys_values(self, windows):
        """`[B, windows, N, D]` -> three times `[B, windows, N, heads, D / heads]`; keys have no bias."""
        *shape, features = windows.shape
        dense = partial(nn.Dense, use_bias=False, dtype=self.dtype, kernel_init=transformer_kernel_init)
        query_bias, value_bias = (
            self.param(name, nn.initializers.zeros, (features,)).astype(self.dtype) for name in ("q_bias", "v_bias")
        )
        query, key, value = jnp.split(dense(3 * features, name="qkv")(windows), 3, axis=-1)
        heads = (*shape, self.num_heads, features // self.num_heads)
        return (query + query_bias).reshape(heads), key.reshape(heads), (value + value_bias).reshape(heads)

    def _position_bias(self):
        """What is added for each pair of tokens in a window, in (0, 16): float32 `[heads, N, N]`."""
        table, index = relative_positions(self.window, self.pretrained_window or self.window)
        dense = partial(nn.Dense, kernel_init=transformer_kernel_init)
        hidden = nn.relu(dense(512, name="position_fc1")(table))
        bias = dense(self.num_heads, use_bias=False, name="position_fc2")(hidden)
        return jnp.moveaxis(16 * nn.sigmoid(bias[index]), -1, 0)


class Block(nn.Module):
    """Window attention, then a feed-forward network, each with a norm and a sum after it."""

    num_heads: int
    window: int
    pretrained_window: int
    is_shifted: bool
    window_shrinks: bool
    drop_rate: float
    dtype: jnp.dtype
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """`[B, H, W, D]` -> `[B, H, W, D]`."""
        norm = partial(layer_norm, dtype=self.dtype)
        drop = partial(StochasticDepth, self.drop_rate, self.axis_name)
        window = min(self.window, *x.shape[1:3]) if self.window_shrinks else self.window
        attention = WindowAttention(
            self.num_heads, window, self.pretrained_window, self.is_shifted, self.dtype, name="attention"
        )
        x = x + drop(name="drop1")(norm(name="norm1")(attention(x)), train)
        y = FeedForward(4 * x.shape[-1], self.dtype, name="mlp")(x)
        return x + drop(name="drop2")(norm(name="norm2")(y), train)


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the features."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, D]` -> `[B, ⌈H/2⌉, ⌈W/2⌉, 2·D]`."""
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        neighbours = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        dense = partial(nn.Dense, use_bias=False, dtype=self.dtype, kernel_init=transformer_kernel_init)
        x = dense(2 * x.shape[-1], name="reduction")(jnp.concatenate(neighbours, axis=-1))
        return layer_norm(dtype=self.dtype, name="norm")(x)


class SwinV2(Classifier):
    """A Swin Transformer V2, see `Classifier`; SwinV2-T by default.

    It takes images of any size of at least one patch; pixels beyond whole patches are left out.

    Attributes:
      patch_size: pixels along the side of a patch.
      width: of a token in the first stage; every other stage doubles it and halves the image.
      stage_sizes: blocks in each stage.
      num_heads: of the attentions of each stage.
      window: tokens along the side of a window, at least 2.
      pretrained_window: that of the network whose weights these are to begin from, where it was another; 0: the same.
        Relative positions are measured by it.
      window_shrinks: whether the window is no larger than what is left of the image, as in timm and transformers;
        else the image is filled up with zeros, as in torchvision.
      stochastic_depth: how probably the last block is left out in training, others evenly less.
    """

    patch_size: int = 4
    width: int = 96
    stage_sizes: Sequence[int] = (2, 2, 6, 2)
    num_heads: Sequence[int] = (3, 6, 12, 24)
    window: int = 8
    pretrained_window: int = 0
    window_shrinks: bool = False
    stochastic_depth: float = 0.0

    def setup(self) -> None:
        """The first and the last layer, which stand alone."""
        if self.window < 2:
            raise UserError(f"window of a SwinV2 must be at least 2; got {self.window}")
        if len(self.num_heads) != len(self.stage_sizes):
            raise UserError(f"num_heads of a SwinV2 must be {len(self.stage_sizes)}, one a stage; got {self.num_heads}")
        if any(self.width * 2**stage % heads for stage, heads in enumerate(self.num_heads)):
            raise UserError(
                f"the heads of a SwinV2 must divide its width {self.width} (doubled each stage); got {self.num_heads}"
            )
        self.patch_embedding = patches(self.width, self.patch_size, dtype=self.dtype)
        self.head = nn.Dense(self.num_classes, dtype=jnp.float32, kernel_init=transformer_kernel_init)

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        """The patch embedding: `[B, H, W, C]` -> `[B, H/patch, W/patch, width]`."""
        return self.patch_embedding(inputs.astype(self.dtype))

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """What the head sees: `[B, H, W, width]`, from the first layer, -> float32 `[B, features]`."""
        block_class = maybe_remat(Block, self.remat and train, static_argnums=(2,))
        rates = depth_rates(self.stochastic_depth, sum(self.stage_sizes))
        x = layer_norm(dtype=self.dtype, name="patch_norm")(x)
        for stage, (num_blocks, num_heads) in enumerate(zip(self.stage_sizes, self.num_heads, strict=True)):
            if stage:
                x = PatchMerging(self.dtype, name=f"merging{stage}")(x)
            for block in range(num_blocks):
                x = block_class(
                    num_heads,
                    self.window,
                    self.pretrained_window,
                    is_shifted=block % 2 == 1,
                    window_shrinks=self.window_shrinks,
                    drop_rate=next(rates),
                    dtype=self.dtype,
                    axis_name=self.axis_name,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x, train)
        return global_mean(layer_norm(dtype=self.dtype, name="norm")(x))


def unit(x: jax.Array) -> jax.Array:
    """Vectors of length 1 along the last axis; those of length 0 stay, with a finite gradient."""
    squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
    return (x * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))).astype(x.dtype)


def window_partition(x: Array, window: int) -> Array:
    """`[B, H, W, D]` -> `[B, windows, window², D]`."""
    batch, height, width, features = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, features)
    return x.swapaxes(2, 3).reshape(batch, -1, window**2, features)


def window_reverse(windows: jax.Array, size: tuple[int, int], window: int) -> jax.Array:
    """The inverse of `divided`, for images of this height and width."""
    (height, width), features = size, windows.shape[-1]
    x = windows.reshape(-1, height // window, width // window, window, window, features)
    return x.swapaxes(2, 3).reshape(-1, height, width, features)


def shift_mask(size: tuple[int, int], window: int, shift: tuple[int, int]) -> np.ndarray:
    """`MASKED` for pairs of tokens in a window that are no neighbours but for the shift: float32 `[windows, N, N]`."""
    rows, columns = (
        # before the last window, in it, and what has come around
        np.digitize(np.arange(side), [side - window, side - s] if s else [side])
        for side, s in zip(size, shift, strict=True)
    )
    regions = window_partition((3 * rows[:, None] + columns)[None, ..., None], window)[0, ..., 0]
    return np.where(regions[:, :, None] == regions[:, None], 0, MASKED).astype(np.float32)


def relative_positions(window: int, pretrained_window: int) -> tuple[np.ndarray, np.ndarray]:
    """Where tokens of a window stand to each other.

    Returns:
      Log-spaced offsets along both axes, of which there are `2·window - 1` each, float32 `[offsets, 2]`, and for
      each pair of tokens which of them is theirs, int `[N, N]`.
    """
    offsets = np.arange(1 - window, window, dtype=np.float32) * 8 / max(pretrained_window - 1, 1)
    spaced = np.sign(offsets) * np.log2(np.abs(offsets) + 1) / np.log2(8)
    table = np.stack(np.meshgrid(spaced, spaced, indexing="ij"), axis=-1).reshape(-1, 2)
    places = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij")).reshape(2, -1)
    rows, columns = places[:, :, None] - places[:, None] + window - 1
    return table.astype(np.float32), rows * (2 * window - 1) + columns
