"""Vision transformers: ViT (Dosovitskiy et al. 2021, arXiv 2010.11929) and DeiT (Touvron et al. 2021, 2012.12877)."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from anchor_jax.core.errors import UserError
from anchor_jax.models.layers import (
    Classifier,
    FeedForward,
    StochasticDepth,
    depth_rates,
    maybe_remat,
    patches,
    transformer_kernel_init,
)
from anchor_jax.runtime.backends import attention

layer_norm = partial(nn.LayerNorm, epsilon=1e-6)


class SelfAttention(nn.Module):
    """Every token looks at every token, with several heads."""

    num_heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, T, D]` -> `[B, T, D]`."""
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=transformer_kernel_init)
        batch, tokens, width = x.shape
        qkv = dense(3 * width, name="qkv")(x).reshape(batch, tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = jnp.moveaxis(qkv, 2, 0)
        return dense(width, name="projection")(attention(query, key, value).reshape(batch, tokens, width))


class Block(nn.Module):
    """Self-attention, then a feed-forward network, each with a norm before it and a sum after it."""

    num_heads: int
    drop_rate: float
    dtype: jnp.dtype
    axis_name: str | None

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
    """A vision transformer with a class token and learned positions, see `Classifier`; ViT-B/16 by default.

    The images that it is initialised with say how many positions there are; all others must have as many.

    Attributes:
      patch_size: pixels along the side of a patch, which must divide those of the image.
      width: of a token, a multiple of `num_heads`.
      depth: number of blocks.
      num_heads: of each attention.
      stochastic_depth: how probably the last block is left out in training, others evenly less.
      distillation_token: whether a second token follows the class token, as in DeiT's distilled networks; the
        class token alone is classified.
    """

    patch_size: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    stochastic_depth: float = 0.0
    distillation_token: bool = False

    def setup(self) -> None:
        """The first and the last layer, which stand alone."""
        if self.width % self.num_heads:
            raise UserError(f"width of a ViT must be a multiple of its {self.num_heads} heads; got {self.width}")
        self.patch_embedding = patches(self.width, self.patch_size, dtype=self.dtype)
        self.head = nn.Dense(self.num_classes, dtype=jnp.float32, kernel_init=transformer_kernel_init)

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        """The patch embedding: `[B, H, W, C]` -> `[B, H/patch, W/patch, width]`."""
        if inputs.shape[1] % self.patch_size or inputs.shape[2] % self.patch_size:
            raise UserError(
                f"a ViT with patches of {self.patch_size} pixels takes images whose sides are multiples of it; got "
                f"{inputs.shape[1]}x{inputs.shape[2]}; resize them or set the option patch_size"
            )
        return self.patch_embedding(inputs.astype(self.dtype))

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """The class token at the end: `[B, H, W, width]`, from the first layer, -> float32 `[B, width]`."""
        batch = x.shape[0]
        x = x.reshape(batch, -1, self.width)
        tokens = [self._token("class_token")]
        if self.distillation_token:
            tokens.append(self._token("distillation_token"))
        x = jnp.concatenate([*(jnp.broadcast_to(t, (batch, 1, self.width)) for t in tokens), x], axis=1)
        positions = self.param("position_embedding", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        x = x + positions.astype(self.dtype)
        block_class = maybe_remat(Block, self.remat and train, static_argnums=(2,))
        for block, rate in enumerate(depth_rates(self.stochastic_depth, self.depth)):
            x = block_class(self.num_heads, rate, self.dtype, self.axis_name, name=f"block{block + 1}")(x, train)
        return layer_norm(dtype=jnp.float32, name="norm")(x[:, 0])

    def _token(self, name):
        return self.param(name, nn.initializers.zeros, (1, 1, self.width)).astype(self.dtype)
