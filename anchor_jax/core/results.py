"""Results of inference over K references: predictions, class probabilities and their scores of uncertainty."""

# JAX leaves some parameters unannotated, such as `device` of `jnp.asarray`
# pyright: reportUnknownMemberType=false
from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float32

from anchor_jax.core import checks
from anchor_jax.core.errors import UserTypeError
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.core.uncertainty import energy


@short_repr
class Prediction(NamedTuple):
    """Mean and spread of a model's outputs over K references, as returned by `predict`.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> x, references = jnp.array([[5.0]]), jnp.array([[1.0], [2.0], [3.0]])
      >>> mean, std = aj.predict(lambda params, inputs: inputs[:, 0], None, x, references)
      >>> mean.tolist(), std.tolist()
      ([2.0], [1.0])
    """

    mean: Float32[Array, "batch *outputs"]
    std: Float32[Array, "batch *outputs"] | None  # unbiased (K - 1), at least 0; None if K == 1


@short_repr
class Classification(NamedTuple):
    """Class probabilities and their uncertainty over K references, as returned by `classify`.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> x, references = jnp.ones((5, 3)), jnp.zeros((10, 3))
      >>> classification = aj.classify(lambda params, inputs: inputs, None, x, references)
      >>> classification.probs.shape, classification.entropy.shape
      ((5, 6), (5,))
    """

    logits: Float32[Array, "batch classes"]  # mean over references
    probs: Float32[Array, "batch classes"]  # mean of the softmaxes
    probs_std: Float32[Array, "batch classes"] | None  # unbiased spread of the softmaxes; None if K == 1
    entropy: Float32[Array, "batch"]  # of `probs`, in [0, ln C] nats; higher is less certain
    mutual_information: Float32[Array, "batch"]  # in [0, ln C] nats; higher is less certain; 0 if K == 1


@short_repr
class VotedClassification(NamedTuple):
    """A classification and the agreement of its references, as returned by `classify_with_votes`.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> voted = aj.inference.single_vote(jnp.array([[2.0, 0.0]]))
      >>> voted.agreement.tolist()
      [1.0]
    """

    classification: Classification
    agreement: Float32[Array, "batch"]  # in [1/K, 1], share of references that vote for the most frequent class


def anomaly_scores(answer: Classification | VotedClassification) -> dict[str, Float32[Array, "batch"]]:
    """Return all scores of uncertainty of a classification; each is higher for less certain inputs.

    They are those of `anchor-jax evaluate --suites ood`.

    Args:
      answer: the result of `classify`, `classify_with_votes`, a `Predictor` or an exported classifier.

    Returns:
      float32 `[B]` by name: "energy" (`-logsumexp` of the mean logits), "max_softmax" (1 - max probability),
      "max_logit" (negative), "entropy" of the mean probabilities in nats; from at least two references also
      "mutual_information" in nats and "spread" (standard deviation of the probabilities, mean over classes); from a
      `VotedClassification` also "agreement" (1 - share of references that vote for the most frequent class).

    Raises:
      UserTypeError: `answer` is not a classification.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> answer = aj.classify(lambda params, inputs: inputs[:, :2], None, jnp.ones((1, 2)), jnp.eye(2))
      >>> scores = aj.inference.anomaly_scores(answer)
      >>> print({name: round(score[0].item(), 3) for name, score in scores.items()})  # doctest: +NORMALIZE_WHITESPACE
      {'energy': -1.193, 'max_softmax': 0.5, 'max_logit': -0.5, 'entropy': 0.693, 'mutual_information': 0.111,
       'spread': 0.327}
    """
    voted = answer if isinstance(answer, VotedClassification) else None
    found = answer.classification if isinstance(answer, VotedClassification) else answer
    if not isinstance(found, Classification):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UserTypeError(f"answer must be the result of anchor_jax.classify; got {checks.described(found)}")
    scores = {
        "energy": energy(found.logits),
        "max_softmax": 1 - jnp.max(found.probs, axis=-1),
        "max_logit": -jnp.max(found.logits, axis=-1),
        "entropy": found.entropy,
    }
    if found.probs_std is not None:
        scores |= {"mutual_information": found.mutual_information, "spread": jnp.mean(found.probs_std, axis=-1)}
        if voted is not None:
            scores["agreement"] = 1 - voted.agreement
    return scores
