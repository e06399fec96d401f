"""What the experiments on ImageNet share; not one itself.

The data set must be prepared by tensorflow-datasets (in TFDS_DATA_DIR or --config.data.path); it is decoded batch by
batch (--config.data.workers). References are other images of the batch, out of the same 32, as on one GPU of the
released code, and masked with probability 0.2, as there (LLNL/anchoring c472301, ImageNet/run_train.sh and wrapper.py).
What is masked is asked for a uniform prediction, as in the paper (arXiv 2406.00529); that code asks for the label,
--config.anchoring.masked_target=label.

Where a recipe changes the learning rate every epoch, as torchvision's do, here it changes every step.
"""

from anchor_jax.config import Config, base


def get_config() -> Config:
    config = base()
    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.test_split = "validation"
    config.data.streaming = True
    config.data.image_size = 224
    config.data.crop_fraction = 0.875  # the shorter side becomes 256 pixels
    # of the released code and of torchvision
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
