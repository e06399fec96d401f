"""The configurations that published results are of: `configs/` as data, with what the sources leave open.

CIFAR: the paper, and LLNL/AMP for what it does not state. ImageNet: the recipes that the configs name, with references
and masks as in the released code.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

Allowed = Mapping[str, tuple[Any, ...]]  # config key -> allowed values; other keys must have their default


class Protocol(NamedTuple):
    """How the networks of a dataset were trained.

    Attributes:
      where: the configuration stands, such as "in the paper".
      training_examples: in the dataset.
      keys: that all models share.
      recipes: model -> its other keys.
    """

    where: str
    training_examples: int
    keys: Allowed
    recipes: Mapping[str, Allowed]


_COMMON: Allowed = {
    "data.train_split": ("train",),
    "data.validation_fraction": (0.0,),
    "augmentation.flip": (True,),
    "model.remat": (False, True),  # recomputes the same numbers
    "anchoring.enabled": (True, False),
    "anchoring.mask_per": ("batch",),
    "anchoring.masked_target": ("uniform", "label"),  # the paper's text and its released code
    "anchoring.update_bn_when_masked": (True, False),  # not specified in the paper
}

_CIFAR = _COMMON | {
    "data.test_split": ("test",),
    "data.image_size": (0,),
    "data.mean": ((0.4914, 0.4822, 0.4465),),
    "data.std": ((0.2023, 0.1994, 0.2010),),
    "augmentation.crop_padding": (4,),
    "model.dtype": ("float32",),
    "anchoring.references": ("bank",),
    "anchoring.bank_size": (0, 5, 50, 500, 2_500, 5_000),
    "anchoring.bank_per_class": (False,),
    "anchoring.mask_prob": (0.0, 0.25),
    "optimizer.name": ("sgd",),
    "optimizer.learning_rate": (0.1,),
    "optimizer.momentum": (0.9,),
    "optimizer.weight_decay": (5e-4,),
    "optimizer.schedule": ("step",),
    "optimizer.warmup_epochs": (0.0,),
    "optimizer.milestones_epochs": ((60, 120, 160),),
    "optimizer.decay_factor": (0.2,),
    "training.batch_size": (128,),
    "training.total_epochs": (200.0,),
    "training.label_smoothing": (0.0,),
}
_RESNET18 = {"model.options.width": (64, None), "model.options.stem": ("cifar", None)}
_WRN = {"model.options.dropout_rate": (0.3, 0.0, None)}  # 0.3 in the released code; not specified in the paper

_IMAGENET = _COMMON | {
    "data.test_split": ("validation", "val"),
    "data.streaming": (True, False),
    "data.image_size": (224,),
    "data.crop_fraction": (0.875,),
    "data.interpolation": ("bilinear",),
    "data.mean": ((0.485, 0.456, 0.406),),
    "data.std": ((0.229, 0.224, 0.225),),
    "augmentation.resized_crop": ((0.08, 1.0),),
    "model.dtype": ("bfloat16", "float32"),
    "anchoring.references": ("batch",),
    "anchoring.group_size": (32,),
    "anchoring.mask_per": ("batch", "group"),  # the paper's text and its released code
    "anchoring.mask_prob": (0.0, 0.2),
    "anchoring.mask_draw": ("random", "periodic"),  # the paper's text: every fifth batch
    "optimizer.schedule": ("cosine",),
}
_ADAMW = {"optimizer.name": ("adamw",)}
_NO_DECAY = {f"optimizer.{kind}_weight_decay": (0.0,) for kind in ("norm", "bias", "position")}
_MIXED = {"augmentation.mixup_alpha": (0.8,), "augmentation.cutmix_alpha": (1.0,), "augmentation.erasing_prob": (0.25,)}
_REGNET = {
    "optimizer.name": ("sgd",),
    "optimizer.learning_rate": (0.8,),
    "optimizer.momentum": (0.9,),
    "optimizer.weight_decay": (5e-5,),
    "optimizer.warmup_epochs": (5.0,),
    "optimizer.warmup_from": (0.1,),
    "training.batch_size": (1024,),
    "training.bn_group_size": (0, 128),  # torchvision's recipe: the batch of a GPU
    "training.total_epochs": (100.0,),
}
_DEIT = _ADAMW | _NO_DECAY | _MIXED
_DEIT |= {
    "data.interpolation": ("bicubic",),
    "data.repeats": (3,),
    "augmentation.policy": ("rand_augment",),
    "augmentation.magnitude": (27,),
    "optimizer.learning_rate": (1e-3,),
    "optimizer.weight_decay": (0.05,),
    "optimizer.final_learning_rate": (1e-5,),
    "optimizer.warmup_epochs": (5.0,),
    "optimizer.warmup_from": (1e-3,),
    "training.batch_size": (1024,),
    "training.total_epochs": (300.0,),
    "training.label_smoothing": (0.1,),
}
_SWIN = _ADAMW | _NO_DECAY | _MIXED
_SWIN |= {
    "data.interpolation": ("bicubic",),
    "data.repeats": (4,),
    "data.image_size": (256,),
    "data.crop_fraction": (1.0,),
    "augmentation.policy": ("trivial_augment",),
    "optimizer.learning_rate": (1e-4,),
    "optimizer.weight_decay": (0.05,),
    "optimizer.final_learning_rate": (1e-6,),
    "optimizer.clip_norm": (5.0,),
    "training.batch_size": (512,),
    "training.total_epochs": (400.0,),
    "training.label_smoothing": (0.1,),
    "training.ema_decay": (0.9991808,),
    "training.ema_every_steps": (32,),
}
_VIT = _ADAMW | {
    "data.repeats": (3,),
    "augmentation.policy": ("rand_augment",),
    "augmentation.mixup_alpha": (0.2,),
    "augmentation.cutmix_alpha": (1.0,),
    "optimizer.learning_rate": (3e-3,),
    "optimizer.weight_decay": (0.3,),
    "optimizer.warmup_epochs": (30.0,),
    "optimizer.warmup_from": (0.033,),
    "optimizer.clip_norm": (1.0,),
    "training.batch_size": (4096,),
    "training.total_epochs": (300.0,),
    "training.label_smoothing": (0.11,),
    "training.ema_decay": (0.99126,),
    "training.ema_every_steps": (32,),
}

PROTOCOLS: Mapping[str, Protocol] = {  # by the name of the dataset
    "cifar10": Protocol("in the paper", 50_000, _CIFAR, {"resnet18": _RESNET18}),
    "cifar100": Protocol("in the paper", 50_000, _CIFAR, {"resnet18": _RESNET18, "wrn40_2": _WRN}),
    "imagenet2012": Protocol(
        "in the published recipe",
        1_281_167,
        _IMAGENET,
        {
            "regnet_y_800mf": _REGNET,
            "deit_s16": _DEIT,
            "swin_v2_t": _SWIN,
            "swin_v2_s": _SWIN,
            "vit_b16": _VIT,
            "swin_v2_b": _SWIN,
        },
    ),
}
