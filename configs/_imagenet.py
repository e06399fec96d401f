"""Settings that the ImageNet configs share; not a config itself.

The dataset must be prepared by tensorflow-datasets, in $TFDS_DATA_DIR or --config.data.path. Images are decoded batch
by batch, in --config.data.workers processes. As on one GPU of the released code (LLNL/anchoring c472301,
ImageNet/run_train.sh and wrapper.py), references are other images of the same block of 32, and are masked with
probability 0.2. As in the paper (arXiv 2406.00529), whole batches are masked; the released code masks each block of 32
(--config.anchoring.mask_per=group). As in the released code, masked examples keep their labels; in the paper's text
their target is uniform (--config.anchoring.masked_target=uniform).

If a recipe changes the learning rate every epoch, as torchvision's do, it changes every step here.
"""

from anchor_jax.config import Config, base


def get_config() -> Config:
    config = base()
    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.test_split = "validation"
    config.data.streaming = True
    config.data.image_size = 224
    config.data.mode = "RGB"
    config.data.crop_fraction = 0.875  # the shorter side becomes 256 pixels
    config.data.interpolation = "bilinear"  # torchvision's default, in training and evaluation
    # those of the released code and of torchvision
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.augmentation.resized_crop = (0.08, 1.0)
    config.augmentation.flip = True
    config.model.dtype = "bfloat16"
    config.anchoring.references = "batch"
    config.anchoring.group_size = 32
    config.anchoring.mask_prob = 0.2
    config.evaluation.num_bins = 20
    config.logging.every_steps = 100
    return config
