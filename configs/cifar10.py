"""CIFAR-10 with ResNet-18: anchored training with masking, the protocol of the paper (arXiv 2406.00529).

    python train.py --config configs/cifar10.py --workdir runs/cifar10

Time and result: not yet measured. The paper reports 80.8% on CIFAR-10-C, and 75.6% for a standard network. A reduced
run on 2 CPU cores, with width 16 and 8 epochs, took an hour next to other work and reached 80.3% on the clean test set
with 10 references (one run, seed 0, docs/results/cifar10_width16_cpu.json, which contains the command; masked batches
still updated the statistics of BatchNorm, and their target was uniform).

The dataset must be prepared by tensorflow-datasets, in $TFDS_DATA_DIR or --config.data.path.

Variants of the paper: without masking, --config.anchoring.mask_prob=0; a standard network,
--config.anchoring.enabled=False; label noise, such as 10%, --config.data.label_noise=0.1.
"""

from anchor_jax.config import Config, base


def get_config() -> Config:
    config = base()
    config.data.source = "tfds"
    config.data.name = "cifar10"
    # the released code's (CIFAR/train.py); the standard deviation over all pixels is 0.2470, 0.2435, 0.2616
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2023, 0.1994, 0.2010)
    config.augmentation.crop_padding = 4
    config.augmentation.flip = True
    config.model.name = "resnet18"
    config.anchoring.mask_prob = 0.25
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 5e-4
    config.optimizer.schedule = "step"
    config.optimizer.milestones_epochs = (60, 120, 160)
    config.optimizer.decay_factor = 0.2
    config.training.batch_size = 128
    config.training.total_epochs = 200.0
    config.evaluation.num_bins = 20
    config.logging.every_steps = 100
    return config
