"""All config keys: the type, default, meaning and range of each, in one line."""

from typing import TYPE_CHECKING, Any, Literal

from anchor_jax.config.declaration import Section, key

MAX_EPOCHS = 1_000_000  # keeps the number of steps within int32


class DataConfig(Section):
    """The dataset and how it is read."""

    source: str = key("digits", 'Kind of dataset: "digits", "tfds", "folder" or "npz".')
    name: str = key("", 'Name of the TFDS dataset, such as "cifar10".')
    path: str = key("", 'Path of the folder or .npz file; for "tfds", of the prepared datasets ("": the TFDS default).')
    train_split: str = key("train", "Split to train on.")
    test_split: str = key("test", "Split to evaluate on.")
    classes: str = key(
        "",
        "File with the names of the classes, one per line, or config.json of timm or transformers, for data that have "
        'only some of the classes of `model.weights`; in the order of its outputs. "": those of the data.',
    )
    validation_fraction: float = key(
        0.0,
        "Fraction of the training set that is held out for the evaluations during training; 0 uses the test set.",
        at_least=0,
        at_most=0.9,
    )
    image_size: int = key(
        0,
        'Side S in pixels of the square that "tfds" and "folder" images are resized and cropped to; 0: as stored.',
        at_least=0,
    )
    mode: Literal["auto", "L", "RGB"] = key(
        "auto",
        'Read all images as grayscale ("L") or color ("RGB"). "auto": grayscale if all training images are, otherwise '
        "RGB, and arrays as they are; the run records what this is.",
    )
    channels: int = key(
        0,
        "Number of channels of the images; 0: any up to 4. Required for arrays with more, such as 13 of multispectral "
        "images, because most arrays with a longer last axis are `[N, C, H, W]`.",
        at_least=0,
    )
    mean: tuple[float, ...] = key((), "Mean of each channel, of pixels in [0, 1]; () measures it on the training set.")
    std: tuple[float, ...] = key((), "Standard deviation of each channel, as for `mean`. Each must be above 0.")
    crop_fraction: float = key(
        1.0,
        "Fraction of the shorter side that the central crop of evaluation images and references covers, in [0.05, 1]; "
        "0: that of the source of the weights with `like_weights`, otherwise 1.",
        at_least=0,
        at_most=1,
    )
    interpolation: Literal["auto", "bilinear", "bicubic"] = key(
        "auto",
        'How images are resized, in training and evaluation; always with antialiasing. "auto": bilinear in the random '
        "crops of `augmentation.resized_crop`, and bicubic everywhere else.",
    )
    resizing: Literal["auto", "box", "shorter_side", "stretch"] = key(
        "auto",
        'How evaluation images and references become S x S pixels. "box": the central crop is resized in one step. '
        '"shorter_side": the shorter side is resized to ⌊S / `crop_fraction`⌋ pixels and the center is cropped, with '
        'the pixels of torchvision and timm. "stretch": both sides are resized to as many pixels, without keeping the '
        'aspect ratio. "auto": "box".',
    )
    like_weights: bool = key(
        False,
        "Read images as the source of `model.weights` does: sets what is left open of `image_size` (0), `mean` and "
        '`std` (()), `crop_fraction` (0), `interpolation` and `resizing` ("auto"). The run records what these are.',
    )
    orientation: Literal["auto", "exif", "stored"] = key(
        "auto",
        'Turn images upright if their EXIF data say how ("exif"), or ignore that ("stored"). "auto": "exif", unless a '
        "run of an earlier version, which ignored it, resumes; the run records which it is.",
    )
    label_noise: float = key(
        0.0, "Fraction of training labels that are replaced by another class.", at_least=0, at_most=1
    )
    streaming: bool = key(
        False, 'Decode "tfds" and "folder" images batch by batch, for training sets that do not fit on the device.'
    )
    workers: int = key(
        0, "Decoding processes of a stream; 0 decodes in threads of the main process.", at_least=0, at_most=1_000
    )
    repeats: int = key(1, "Copies of each image in a batch of a stream, each augmented independently.", at_least=1)
    max_corrupt_fraction: float = key(
        1e-3, "Fraction of a stream's images that may be unreadable before the run ends.", at_least=0, at_most=1
    )


class AugmentationConfig(Section):
    """Augmentation of the training images, on the devices."""

    crop_padding: int = key(0, "Black pixels added to each side before a random crop; 0: no crop.", at_least=0)
    resized_crop: tuple[float, ...] = key(
        (),
        "(min, max) area of a random crop, as fractions of the image, such as (0.08, 1.0); the crop is resized to the "
        "image size. (): no such crop. Overrides `crop_padding`.",
    )
    flip: bool = key(False, "Flip horizontally with probability 1/2.")
    policy: Literal["", "trivial_augment", "rand_augment", "pixmix"] = key("", 'Augmentation policy; "": none.')
    num_operations: int = key(2, 'Operations per image of "rand_augment".', at_least=1, at_most=100)
    magnitude: int = key(9, 'Magnitude of the operations of "rand_augment".', at_least=0, at_most=30)
    mixing_images_dir: str = key("", 'Folder of images that "pixmix" mixes in; "" generates fractals at the start.')
    erasing_prob: float = key(0.0, "Probability of random erasing, after normalization.", at_least=0, at_most=1)
    mixup_alpha: float = key(0.0, "α of mixup's Beta distribution; 0: no mixup.", at_least=0)
    cutmix_alpha: float = key(
        0.0,
        "α of CutMix's Beta distribution; 0: no CutMix. With `mixup_alpha`, one of the two is drawn per batch.",
        at_least=0,
    )


class ModelOptions(Section):
    """Options of the model, such as `config.model.options.width = 64`; each model declares and checks its own."""

    if TYPE_CHECKING:  # any name is allowed

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


class ModelConfig(Section):
    """The network and its initial weights."""

    name: str = key("resnet18", "Name of a model of `anchor_jax.models`.")
    dtype: str = key(
        "float32",
        'Dtype of activations: "float32" or "bfloat16"; "auto": "bfloat16", but "float32" if nothing is trained. '
        "Parameters are float32.",
    )
    options: ModelOptions
    stochastic_depth: float = key(
        -1.0,
        "Default of `options.stochastic_depth` for the models that have it; below 0: that of the model.",
        at_least=-1,
        at_most=1,
    )
    remat: bool = key(False, "Recompute the activations of each block in the backward pass, to save memory.")
    weights: str = key(
        "",
        'PyTorch weights to start from, as "SOURCE:FILE" or "SOURCE:FILE#ENTRY" (see docs/models.md); "": random '
        "initialization.",
    )
    whiten_stem: bool = key(
        False,
        'Initialize the first layer of "fastnet" so that it whitens patches of the training images, reference and '
        "residual each on their own.",
    )


class AnchoringConfig(Section):
    """References and reference masking."""

    enabled: bool = key(True, "Train an anchored network; False trains a standard network, which takes x itself.")
    references: Literal["bank", "batch"] = key(
        "bank", 'Draw references from the un-augmented training set ("bank") or from the augmented "batch".'
    )
    group_size: int = key(
        0,
        'Number of consecutive images among which `references="batch"` draws, and which share a mask with '
        '`mask_per="group"`; 0: the whole batch. Must divide `training.batch_size`.',
        at_least=0,
    )
    replace: bool = key(True, "Draw with replacement; False uses no reference twice within a step or a group.")
    bank_size: int = key(0, "Number of examples in the bank; 0: the whole training set.", at_least=0)
    bank_per_class: bool = key(False, "Put the same number of examples of each class into the bank.")
    mask_prob: float = key(
        0.25, "Probability of masking the reference: the paper's α; 0: no masking.", at_least=0, at_most=1
    )
    mask_per: Literal["batch", "group", "example"] = key(
        "batch",
        "Draw the mask once per batch, per group of `group_size` consecutive images (as the released ImageNet code "
        'does, for the 32 of each process), or per example. "group" needs `references="batch"` and a `group_size`.',
    )
    mask_draw: Literal["random", "periodic"] = key(
        "random",
        'With `mask_per="batch"`: draw the mask of each batch at random, or mask every (1/`mask_prob`)-th batch, '
        '"periodic". Masks per group or example are always drawn at random.',
    )
    masked_target: Literal["label", "uniform"] = key(
        "label", 'Target of masked examples: "label", as in the released code, or "uniform", as in the paper\'s text.'
    )
    update_bn_when_masked: bool = key(
        False,
        "Let masked batches update BatchNorm's running statistics. They always do if `mask_prob` is 1. Masks per group "
        "or example also do, unless the images of each group of `training.bn_group_size` share one mask.",
    )
    overlay_weight: float = key(
        0.0,
        "λ of a control experiment for standard networks, `enabled=False`: in what would be masked, the image becomes "
        "x + λ·r and keeps its label; -1 shows the residual alone. 0: standard training.",
        at_least=-10,
        at_most=10,
    )


class OptimizerConfig(Section):
    """The optimizer and the learning rate schedule."""

    name: Literal["sgd", "adamw"] = key("sgd", "Optimizer; both follow PyTorch's definition.")
    learning_rate: float = key(0.1, "Peak learning rate.", at_least=0)
    momentum: float = key(0.9, 'Momentum of "sgd".', at_least=0, at_most=1)
    nesterov: bool = key(False, 'Use Nesterov momentum in "sgd".')
    weight_decay: float = key(
        5e-4,
        "Weight decay of all parameters except those with a decay of their own, see the next three keys.",
        at_least=0,
    )
    norm_weight_decay: float = key(-1.0, "Weight decay of norm scales and biases; below 0: `weight_decay`.")
    bias_weight_decay: float = key(-1.0, "Weight decay of all other biases; below 0: `weight_decay`.")
    position_weight_decay: float = key(
        -1.0, "Weight decay of class tokens, position embeddings and position biases; below 0: `weight_decay`."
    )
    schedule: Literal["step", "cosine", "linear"] = key("step", "Learning rate schedule after the warmup.")
    final_learning_rate: float = key(0.0, 'Learning rate of "cosine" and "linear" at the last step.', at_least=0)
    warmup_epochs: float = key(0.0, "Epochs of linear warmup.", at_least=0, at_most=MAX_EPOCHS)
    warmup_from: float = key(
        0.0, "Learning rate at the start of the warmup, as a fraction of the peak.", at_least=0, at_most=1
    )
    milestones_epochs: tuple[float, ...] = key((60, 120, 160), 'Epochs at which "step" reduces the learning rate.')
    decay_factor: float = key(
        0.2, 'Factor by which "step" multiplies the learning rate at each milestone.', at_least=0, at_most=1
    )
    clip_norm: float = key(0.0, "Maximum global norm of the gradient; 0: no clipping.", at_least=0)
    layer_decay: float = key(
        1.0,
        "Factor of the learning rate from each block to the one before it; 1: no layer decay.",
        at_least=0,
        at_most=1,
    )
    frozen: tuple[str, ...] = key((), 'Prefixes of the names of frozen parameters, such as ("stem", "stage1").')


class TrainingConfig(Section):
    """The length of training, its batches, and how its state is kept."""

    batch_size: int = key(128, "Global batch size, over all devices.", at_least=1)
    total_epochs: float = key(
        200.0,
        "Epochs to train; 0 keeps the weights of `model.weights`, which is then required.",
        at_least=0,
        at_most=MAX_EPOCHS,
    )
    label_smoothing: float = key(0.0, "Weight of the uniform distribution in the target.", at_least=0, at_most=1)
    accumulation_steps: int = key(
        1, "Parts into which a device splits its batch to accumulate the gradient, to save memory.", at_least=1
    )
    bn_group_size: int = key(
        0,
        "Number of consecutive images of a batch that BatchNorm normalizes by statistics of their own; 0: the whole "
        "batch. Must divide `batch_size`. Groups that lie on one device each need no communication.",
        at_least=0,
    )
    ema_decay: float = key(
        0.0,
        "Decay of the moving average of parameters and statistics, which is then what is evaluated, below 1; 0: no "
        "average.",
        at_least=0,
        at_most=1,
    )
    ema_every_steps: int = key(1, "Steps between updates of the moving average; at most those of the run.", at_least=1)
    max_consecutive_nonfinite: int = key(
        0,
        "Consecutive updates with a NaN or infinite loss or gradient that are skipped before the run ends.",
        at_least=0,
    )
    sharding: Literal["replicated", "fsdp"] = key(
        "replicated", 'Keep parameters and optimizer state on every device, or shard them over the devices ("fsdp").'
    )


class EvaluationConfig(Section):
    """Evaluation, during training and by `eval.py`."""

    every_epochs: float = key(10.0, "Epochs between evaluations; the last step is always evaluated.", above=0)
    batch_size: int = key(512, "Network inputs evaluated at once, over all devices.", at_least=1)
    num_references: int = key(10, "References per prediction (K) in the evaluations during training.", at_least=1)
    saved_references: int = key(
        100, "References that are drawn once and saved with the run: the maximum K of later evaluations.", at_least=1
    )
    chunk_size: int = key(
        0, "References evaluated at once; memory grows with it. 0: as many as fill `batch_size`.", at_least=0
    )
    num_bins: int = key(15, "Bins of the calibration error.", at_least=1, at_most=10_000)


class CheckpointConfig(Section):
    """How often checkpoints are saved, and how many are kept."""

    every_epochs: float = key(10.0, "Epochs between checkpoints; the last step is always saved.", above=0)
    keep: int = key(3, "Number of latest checkpoints to keep, in addition to the best one.", at_least=1)


class LoggingConfig(Section):
    """How often metrics are logged."""

    every_steps: int = key(0, "Steps between log lines; 0: one per epoch.", at_least=0)


class Config(Section):
    """The complete configuration of a run."""

    seed: int = key(0, "Seed of all randomness of the run.", at_least=0, at_most=2**32 - 1)
    data: DataConfig
    augmentation: AugmentationConfig
    model: ModelConfig
    anchoring: AnchoringConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    checkpoint: CheckpointConfig
    logging: LoggingConfig
