"""A first layer that whitens the patches of the training images.

Source: the first layer of the CIFAR-10 speed runs, arXiv 2404.00498, section 3.1. An anchored network sees a reference
and a residual. Each is whitened alone: filters over both could add them up and would see the image itself.
"""

import numpy as np

from anchor_jax.core.errors import UserError

_EPSILON = 5e-4  # added to the variances, as in the paper


def whitening_kernel(images: np.ndarray, size: int, features: int, *, anchored: bool) -> np.ndarray:
    """Return the kernel of a convolution that whitens patches: principal components, scaled to unit variance.

    Its filters are the principal components of the patches, those of the largest variance first, and then their
    negatives, so that a rectifier loses nothing. With an anchored network, one half of them sees the reference, whose
    patches have the covariance Σ of the images, and the other half the residual, whose patches have 2Σ, since image and
    reference are independent.

    Args:
      images: normalized images, float `[N, H, W, C]`.
      size: height and width of a patch.
      features: number of filters: a multiple of 2, or of 4 if anchored.
      anchored: whether the network sees a reference and a residual, `2C` channels.

    Returns:
      float32 `[size, size, C, features]`, or `[size, size, 2C, features]` if anchored.

    Raises:
      UserError: the number of features is odd, or exceeds twice the size of a patch for each of its inputs.

    >>> whitening_kernel(np.zeros((1, 8, 8, 3)), 2, 24, anchored=True).shape
    (2, 2, 6, 24)
    """
    channels, num_blocks = images.shape[-1], 2 if anchored else 1
    most = 2 * num_blocks * size * size * channels
    if features % (2 * num_blocks) or features > most:
        raise UserError(
            f"a whitening first layer needs a number of features that is a multiple of {2 * num_blocks} and at most "
            f"{most}; got {features}"
        )
    components = _principal_components(images, size)[..., : features // (2 * num_blocks)]
    block = np.concatenate([components, -components], axis=-1)
    if not anchored:
        return block
    of_reference, of_residual = (np.concatenate(parts, axis=2) for parts in _blocks(block))
    return np.concatenate([of_reference, of_residual], axis=-1)


def _blocks(block: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return the kernels over (reference, residual) that see the reference alone, and the residual alone."""
    unseen = np.zeros_like(block)
    return (block, unseen), (unseen, block / np.float32(np.sqrt(2)))


def _principal_components(images: np.ndarray, size: int) -> np.ndarray:
    """Return all principal components of the patches, scaled to unit variance, float32 `[size, size, C, size² C]`."""
    channels = images.shape[-1]
    patches = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))
    patches = np.moveaxis(patches, 3, -1).reshape(-1, size * size * channels)
    variances, components = np.linalg.eigh(np.cov(patches, rowvar=False))  # in ascending order
    scaled = components / np.sqrt(np.maximum(variances, 0) + _EPSILON)
    return scaled[:, ::-1].reshape(size, size, channels, -1).astype(np.float32)
