"""What to try next, from means and spreads of predictions."""

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError


def expected_improvement(mean: jax.Array, std: jax.Array, best: float | jax.Array) -> jax.Array:
    """Expected improvement on the best value so far, of what is to be as large as possible.

    `(m - b) Φ(z) + s φ(z)`, `z = (m - b) / s`, which is the mean of `max(y - b, 0)` for `y` normal about `m` with
    deviation `s`; without spread it is `max(m - b, 0)`.

    Args:
      mean: predictions, floating `[...]`.
      std: their spread, floating, the shape of `mean`, at least 0, such as that of `predict` over references.
      best: the largest value seen.

    Returns:
      The shape of `mean`, at least 0; the largest is to be tried next.

    Raises:
      UserTypeError: `mean` or `std` are not floating, or `best` is no number.
      UserError: the shapes differ or are empty.

    Source: Jones, Schonlau & Welch 1998, *Efficient global optimization of expensive black-box functions*.
    """
    checks.array("mean", mean, "floating", "[...]")
    checks.array("std", std, "floating", "[...]")
    if jnp.shape(mean) != jnp.shape(std):
        raise UserError(f"mean and std must have one shape, got {jnp.shape(mean)} and {jnp.shape(std)}")
    checks.number("best", best, -float("inf"), float("inf"))
    gain = jnp.asarray(mean) - best
    is_sure = jnp.asarray(std) == 0  # where a quotient would be NaN, and so would its gradient
    spread = jnp.where(is_sure, 1.0, std)
    expected = gain * norm.cdf(gain / spread) + spread * norm.pdf(gain / spread)
    return jnp.maximum(jnp.where(is_sure, gain, expected), 0.0)
