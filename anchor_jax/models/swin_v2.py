"""Swin Transformer V2: Liu et al. 2022, *Swin Transformer V2: Scaling Up Capacity and Resolution*, arXiv 2111.09883.

Letters: N tokens per window, D features per token.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from anchor_jax.core import explicit, modes
from anchor_jax.core.errors import UserError
from anchor_jax.models.layers import (
    Classifier,
    FeedForward,
    StochasticDepth,
    global_average_pool,
    image_size_error,
    maybe_remat,
    patch_embedding,
    stochastic_depth_rates,
    transformer_kernel_init,
)
from anchor_jax.runtime.mesh import AxisName

MAX_LOGIT_SCALE = 100.0  # upper bound of the learned scale of the cosines
MASK_VALUE = -100.0  # added to the logits of tokens that are neighbors only because of the cyclic shift

Array = TypeVar("Array", jax.Array, np.ndarray)

layer_norm = partial(nn.LayerNorm, epsilon=1e-5)


class WindowAttention(nn.Module):
    """Scaled cosine attention within windows, with a continuous relative position bias.

    Attributes:
      num_heads: number of heads.
      window: side of a window in tokens.
      pretrained_window: window that relative positions are scaled by; 0: `window`.
      is_shifted: whether windows are shifted by half their side.
      dtype: dtype of activations.
    """

    num_heads: int
    window: int
    pretrained_window: int
    is_shifted: bool
    dtype: DTypeLike

    @nn.compact
    @modes.any_promotion
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, D]` -> `[B, H, W, D]`; internally zero-padded to a multiple of the window."""
        height, width, features = x.shape[1:]
        x = jnp.pad(x, ((0, 0), (0, -height % self.window), (0, -width % self.window), (0, 0)))
        size = (x.shape[1], x.shape[2])
        shift = self._shift(size)
        bias = self._position_bias()
        if any(shift):
            x = jnp.roll(x, [-s for s in shift], axis=(1, 2))
            bias = bias + shift_mask(size, self.window, shift)[:, None]

        windows = window_partition(x, self.window)
        query, key, value = self._queries_keys_values(windows)
        logit_scale = self.param("logit_scale", nn.initializers.constant(math.log(10)), (self.num_heads, 1, 1))
        cosines = jnp.einsum(
            "bwqhd,bwkhd->bwhqk", l2_normalize(query), l2_normalize(key), preferred_element_type=jnp.float32
        )
        logits = cosines * jnp.exp(jnp.minimum(logit_scale, math.log(MAX_LOGIT_SCALE))) + bias
        attention = nn.softmax(logits).astype(self.dtype)
        attended = jnp.einsum("bwhqk,bwkhd->bwqhd", attention, value).reshape(windows.shape)
        y = nn.Dense(features, dtype=self.dtype, kernel_init=transformer_kernel_init, name="projection")(attended)

        y = window_reverse(y, size, self.window)
        if any(shift):
            y = jnp.roll(y, shift, axis=(1, 2))
        return y[:, :height, :width]

    def _shift(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the cyclic shift along height and width, 0 along an axis that is a single window."""
        step = self.window // 2 if self.is_shifted else 0
        return (step if self.window < size[0] else 0, step if self.window < size[1] else 0)

    def _queries_keys_values(self, windows: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """`[B, windows, N, D]` -> three arrays `[B, windows, N, heads, D / heads]`; keys have no bias."""
        *shape, features = windows.shape
        dense = partial(nn.Dense, use_bias=False, dtype=self.dtype, kernel_init=transformer_kernel_init)
        query_bias, value_bias = (
            self.param(name, nn.initializers.zeros, (features,)).astype(self.dtype) for name in ("q_bias", "v_bias")
        )
        query, key, value = jnp.split(dense(3 * features, name="qkv")(windows), 3, axis=-1)
        split_heads = (*shape, self.num_heads, features // self.num_heads)
        return (
            (query + query_bias).reshape(split_heads),
            key.reshape(split_heads),
            (value + value_bias).reshape(split_heads),
        )

    def _position_bias(self) -> jax.Array:
        """Return the bias of each pair of tokens in a window, in (0, 16), float32 `[heads, N, N]`."""
        offsets, index = relative_positions(self.window, self.pretrained_window or self.window)
        dense = partial(nn.Dense, kernel_init=transformer_kernel_init)
        hidden = nn.relu(dense(512, name="position_fc1")(offsets))
        bias = 16 * nn.sigmoid(dense(self.num_heads, use_bias=False, name="position_fc2")(hidden))
        # the gradient of indexing is a scatter: on CPU a loop over all pairs, on TPU cheaper than slices (estimated)
        return jax.lax.platform_dependent(
            bias,
            tpu=lambda bias: jnp.moveaxis(bias[index], -1, 0),
            default=partial(expand_to_pairs, window=self.window),
        )


class SwinBlock(nn.Module):
    """Window attention and a feed-forward network, each followed by a LayerNorm (res-post-norm) and with a shortcut."""

    num_heads: int
    window: int
    pretrained_window: int
    is_shifted: bool
    window_shrinks: bool
    drop_rate: float
    dtype: DTypeLike
    axis_name: AxisName | None

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
    """Merges 2×2 neighboring tokens into one with twice the features."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, D]` -> `[B, ⌈H/2⌉, ⌈W/2⌉, 2·D]`."""
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        neighbors = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        dense = partial(nn.Dense, use_bias=False, dtype=self.dtype, kernel_init=transformer_kernel_init)
        x = dense(2 * x.shape[-1], name="reduction")(jnp.concatenate(neighbors, axis=-1))
        return layer_norm(dtype=self.dtype, name="norm")(x)


class SwinV2(Classifier):
    """A Swin Transformer V2 as in torchvision; the defaults are SwinV2-T.

    Images may have any size of at least one patch; pixels beyond the last full patch are ignored.

    Attributes:
      patch_size: side of a patch in pixels.
      width: features per token in the first stage; each later stage doubles them and halves the resolution.
      stage_sizes: number of blocks per stage.
      num_heads: heads of each attention, per stage.
      window: side of a window in tokens, at least 2.
      pretrained_window: window of the network that the weights come from, which scales the relative positions; 0: same
        as `window`.
      window_shrinks: whether the window shrinks to the feature map where that is smaller, as in timm and transformers;
        otherwise the feature map is zero-padded, as in torchvision.
      stochastic_depth: rate of stochastic depth in the last block; rates rise linearly from 0 over the blocks.
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
        """Create the first and the last layer."""
        if self.window < 2:
            raise UserError(f"window of a SwinV2 must be at least 2; got {self.window}")
        if len(self.num_heads) != len(self.stage_sizes):
            raise UserError(
                f"num_heads of a SwinV2 must have {len(self.stage_sizes)} values, one per stage; got {self.num_heads}"
            )
        if any(self.width * 2**stage % heads for stage, heads in enumerate(self.num_heads)):
            raise UserError(
                f"num_heads of a SwinV2 must divide width={self.width}, doubled in each stage; got {self.num_heads}"
            )
        self.patch_embedding = patch_embedding(self.width, self.patch_size, dtype=self.dtype)
        self.head = nn.Dense(self.num_classes, dtype=jnp.float32, kernel_init=transformer_kernel_init)

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        """Apply the patch embedding: `[B, H, W, C]` -> `[B, H/patch_size, W/patch_size, width]`."""
        if min(inputs.shape[1:3]) < self.patch_size:
            requirement = f"at least patch_size={self.patch_size} of the SwinV2"
            raise image_size_error(inputs, requirement, "set the option patch_size")
        return self.patch_embedding(inputs.astype(self.dtype))

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply all blocks: outputs of the first layer `[B, H, W, width]` -> float32 `[B, features]`."""
        block_class = maybe_remat(SwinBlock, self.remat and train, static_argnums=(2,))
        rates = stochastic_depth_rates(self.stochastic_depth, sum(self.stage_sizes))
        x = layer_norm(dtype=self.dtype, name="patch_norm")(x)
        for stage, (num_blocks, num_heads) in enumerate(zip(self.stage_sizes, self.num_heads, strict=True)):
            if stage > 0:
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
        return global_average_pool(layer_norm(dtype=self.dtype, name="norm")(x))


def l2_normalize(x: jax.Array) -> jax.Array:
    """Scale vectors along the last axis to length 1; zero vectors stay zero and have a finite gradient."""
    squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
    return (x * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))).astype(x.dtype)


def window_partition(x: Array, window: int) -> Array:
    """Divide images into windows: `[B, H, W, D]` -> `[B, windows, window², D]`."""
    batch, height, width, features = x.shape
    x = explicit.reshape_rows(x, (batch, height // window, window, width // window, window, features))
    return explicit.reshape_rows(x.swapaxes(2, 3), (batch, -1, window**2, features))


def window_reverse(windows: jax.Array, size: tuple[int, int], window: int) -> jax.Array:
    """Invert `window_partition` for images of this height and width."""
    (height, width), features = size, windows.shape[-1]
    x = explicit.reshape_rows(windows, (-1, height // window, width // window, window, window, features))
    return explicit.reshape_rows(x.swapaxes(2, 3), (-1, height, width, features))


def shift_mask(size: tuple[int, int], window: int, shift: tuple[int, int]) -> np.ndarray:
    """Return `MASK_VALUE` for tokens of a window that the cyclic shift brought together, float32 `[windows, N, N]`."""
    rows, columns = (
        # region along one axis: before the last window, in the last window, and wrapped around
        np.digitize(np.arange(side), [side - window, side - s] if s else [side])
        for side, s in zip(size, shift, strict=True)
    )
    regions = window_partition((3 * rows[:, None] + columns)[None, ..., None], window)[0, ..., 0]
    return np.where(regions[:, :, None] == regions[:, None], 0, MASK_VALUE).astype(np.float32)


def expand_to_pairs(table: jax.Array, window: int) -> jax.Array:
    """Expand a table over relative offsets to all pairs of tokens in a window.

    Same as `table[index]` with the index of `relative_positions`, heads first, but by slices: along either axis, the
    offsets of a token to all others are a slice of the table that moves by one from token to token.

    Args:
      table: `[(2·window - 1)², heads]`.
      window: side of a window in tokens.

    Returns:
      `[heads, N, N]`.
    """
    side, starts = 2 * window - 1, range(window - 1, -1, -1)
    reversed_table = table.T.reshape(-1, side, side)[:, ::-1, ::-1]
    # not `jnp.stack`, which is a primitive in new versions of JAX, without a counterpart in ONNX
    rows = jnp.concatenate([reversed_table[:, None, start : start + window] for start in starts], axis=1)
    pairs = jnp.concatenate([rows[:, :, None, :, start : start + window] for start in starts], axis=2)
    return pairs.reshape(-1, window**2, window**2)


def relative_positions(window: int, pretrained_window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the relative positions of the tokens in a window.

    Args:
      window: side of a window in tokens.
      pretrained_window: window that offsets are divided by.

    Returns:
      Log-spaced offsets along both axes, float32 `[(2·window - 1)², 2]`, and the index of the offset of each pair of
      tokens, int `[N, N]`.
    """
    offsets = np.arange(1 - window, window, dtype=np.float32) * 8 / max(pretrained_window - 1, 1)
    log_offsets = np.sign(offsets) * np.log2(np.abs(offsets) + 1) / np.log2(8)
    table = np.stack(np.meshgrid(log_offsets, log_offsets, indexing="ij"), axis=-1).reshape(-1, 2)
    coordinates = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij")).reshape(2, -1)
    rows, columns = coordinates[:, :, None] - coordinates[:, None] + window - 1
    return table.astype(np.float32), rows * (2 * window - 1) + columns
