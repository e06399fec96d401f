"""Vision transformers.

ViT: Dosovitskiy et al. 2021, *An Image is Worth 16x16 Words*, arXiv 2010.11929. DeiT: Touvron et al. 2021, *Training
Data-Efficient Image Transformers*, arXiv 2012.12877.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike

from anchor_jax.core import explicit
from anchor_jax.core.errors import UserError
from anchor_jax.models.layers import (
    Classifier,
    FeedForward,
    StochasticDepth,
    image_size_error,
    maybe_remat,
    patch_embedding,
    stochastic_depth_rates,
    transformer_kernel_init,
)
from anchor_jax.runtime.backends import attention
from anchor_jax.runtime.mesh import AxisName

layer_norm = partial(nn.LayerNorm, epsilon=1e-6)


class QueriesKeysValues(nn.Module):
    """A dense layer, `nn.Dense(3 * width)`, whose outputs are queries, keys and values by head.

    On TPUs it is three products, because XLA copies the outputs of a single one to divide them.
    """

    num_heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """`[B, T, D]` -> three arrays `[B, T, heads, D / heads]`."""
        width = x.shape[-1]
        kernel = self.param("kernel", transformer_kernel_init, (width, 3 * width))
        bias = self.param("bias", nn.initializers.zeros, (3 * width,))
        heads = (self.num_heads, width // self.num_heads)

        def by_one_product(x, kernel, bias):
            outputs = jnp.dot(x, kernel) + bias[None, None]
            return tuple(jnp.moveaxis(outputs.reshape(*x.shape[:-1], 3, *heads), -3, 0))

        def by_three_products(x, kernel, bias):
            kernels, biases = jnp.split(kernel.reshape(width, -1, heads[1]), 3, axis=1), jnp.split(bias, 3)
            return tuple(
                jnp.einsum("btw,whd->bthd", x, of) + each.reshape(1, 1, *heads)
                for of, each in zip(kernels, biases, strict=True)
            )

        promoted = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return jax.lax.platform_dependent(*promoted, tpu=by_three_products, default=by_one_product)


class SelfAttention(nn.Module):
    """Multi-head self-attention."""

    num_heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, T, D]` -> `[B, T, D]`."""
        query, key, value = QueriesKeysValues(self.num_heads, self.dtype, name="qkv")(x)
        dense = nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=transformer_kernel_init, name="projection")
        return dense(attention(query, key, value).reshape(x.shape))


class EncoderBlock(nn.Module):
    """Self-attention and a feed-forward network, each after a LayerNorm (pre-norm) and with a shortcut."""

    num_heads: int
    drop_rate: float
    dtype: DTypeLike
    axis_name: AxisName | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """`[B, T, D]` -> `[B, T, D]`."""
        norm = partial(layer_norm, dtype=self.dtype)
        drop = partial(StochasticDepth, self.drop_rate, self.axis_name)
        y = SelfAttention(self.num_heads, self.dtype, name="attention")(norm(name="norm1")(x))
        x = x + drop(name="drop1")(y, train)
        y = FeedForward(4 * x.shape[-1], self.dtype, name="mlp")(norm(name="norm2")(x))
        return x + drop(name="drop2")(y, train)


class ViT(Classifier):
    """A vision transformer with a class token and learned position embeddings; the defaults are ViT-B/16.

    The images passed to `init` determine the number of positions; later images must have as many patches.

    Attributes:
      patch_size: side of a patch in pixels; must divide the sides of the images.
      width: features per token, a multiple of `num_heads`.
      depth: number of blocks.
      num_heads: heads of each attention.
      stochastic_depth: rate of stochastic depth in the last block; rates rise linearly from 0 over the blocks.
      distillation_token: whether a second token follows the class token, as in DeiT's distilled networks; only the
        class token is classified.
    """

    patch_size: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    stochastic_depth: float = 0.0
    distillation_token: bool = False

    def setup(self) -> None:
        """Create the first and the last layer."""
        if self.width % self.num_heads:
            raise UserError(f"width of a ViT must be a multiple of num_heads={self.num_heads}; got {self.width}")
        self.patch_embedding = patch_embedding(self.width, self.patch_size, dtype=self.dtype)
        self.head = nn.Dense(self.num_classes, dtype=jnp.float32, kernel_init=transformer_kernel_init)

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        """Apply the patch embedding: `[B, H, W, C]` -> `[B, H/patch_size, W/patch_size, width]`."""
        if inputs.shape[1] % self.patch_size or inputs.shape[2] % self.patch_size:
            requirement = f"multiples of patch_size={self.patch_size} of the ViT"
            raise image_size_error(inputs, requirement, "set the option patch_size")
        return self.patch_embedding(inputs.astype(self.dtype))

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Return the final class token: outputs of the first layer `[B, H, W, width]` -> float32 `[B, width]`."""
        batch = x.shape[0]
        x = x.reshape(batch, -1, self.width)
        tokens = [self._token("class_token")]
        if self.distillation_token:
            tokens.append(self._token("distillation_token"))
        broadcast = (jnp.broadcast_to(token, (batch, 1, self.width)) for token in tokens)
        x = jnp.concatenate(explicit.aligned(*broadcast, x), axis=1)
        positions = self.param("position_embedding", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        x = x + positions.astype(self.dtype)
        block_class = maybe_remat(EncoderBlock, self.remat and train, static_argnums=(2,))
        for block, rate in enumerate(stochastic_depth_rates(self.stochastic_depth, self.depth)):
            x = block_class(self.num_heads, rate, self.dtype, self.axis_name, name=f"block{block + 1}")(x, train)
        return layer_norm(dtype=jnp.float32, name="norm")(x[:, 0])

    def _token(self, name: str) -> jax.Array:
        return self.param(name, nn.initializers.zeros, (1, 1, self.width)).astype(self.dtype)
