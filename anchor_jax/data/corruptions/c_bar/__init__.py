"""The corruptions of CIFAR-10-C-bar and ImageNet-C-bar, on the device.

Source: Mintun, Kirillov, Xie, "On Interaction Between Augmentations and Corruptions in Natural Corruption Robustness",
NeurIPS 2021 (arXiv 2102.11273), and its generator, `imagenet_c_bar/corrupt.py` of facebookresearch/augmentation-
corruption (MIT license). The formulas, the ranges of random values and the severities are taken from the generator.

Each corruption consists of two functions. `name(key, image, level)` draws the random values as the generator does, and
passes them to a function that depends on the image and these values alone. Images are float32 `[H, W, 3]` in [0, 1];
the result may leave that range, and the caller clips it. A `level` is the generator's own severity, a number up to 10;
the tables of constants below list the five levels of severity 1..5. The generator's images are square; for others,
lengths that depend on the side depend on the shorter one. Names are spelled as in the datasets.

Given the same random values, the results equal those of the generator up to rounding
(docs/results/c_bar_published.json). The following differences are intended:

- The generator truncates pixels to integer levels. Our caller rounds them, which is half a level brighter on average.
- The generator truncates `lines` to integer levels after each line.
- The generator draws the gradients of `perlin_noise` from 512 x 512 points of a square; one of them has no direction,
  and turns parts of one image in a thousand black. Here they are drawn from the continuous square.
- The generator rounds the displacements of `caustic_refraction` to a thousandth of a pixel.
"""

from anchor_jax.data.corruptions.c_bar import noise, occlusion, warp
from anchor_jax.data.corruptions.corruption import Corruption

CORRUPTIONS: dict[str, Corruption] = noise.CORRUPTIONS | occlusion.CORRUPTIONS | warp.CORRUPTIONS
