"""What a config leaves to its model and to the weights it starts from."""

from typing import Any, NamedTuple

from anchor_jax.config import Config
from anchor_jax.data.modes import MODES
from anchor_jax.data.sources import SOURCES
from anchor_jax.models.pytorch.files import source_and_file
from anchor_jax.models.pytorch.preprocessing import SourcePreprocessing, preprocessing_of
from anchor_jax.models.registry import MODELS, option_names
from anchor_jax.training.warm_start import ReadWeights

_OPEN: dict[str, Any] = {
    "image_size": 0,
    "mean": (),
    "std": (),
    "crop_fraction": 0.0,
    "interpolation": "auto",
    "resizing": "auto",
}
_NO_WEIGHTS = "torchvision:"  # what a config without weights follows


class Choices(NamedTuple):
    """A config that leaves nothing open, and what was chosen.

    Attributes:
      config: of the run, as it is recorded.
      preprocessing: where the preprocessing comes from, for the user; "" if the config states it.
    """

    config: Config
    preprocessing: str = ""


def choose(config: Config, recorded: Config | None = None, weights: ReadWeights | None = None) -> Choices:
    """Choose what a valid config leaves open: the dtype, options of the model, and how images are read.

    Args:
      config: of a run.
      recorded: that of the run which goes on, whose choices stay; None for a new run.
      weights: those that a new run starts from; None if there are none, or they are not there yet.
    """
    config = config.copy_and_resolve_references()
    if config.model.dtype == "auto":
        chosen = "bfloat16" if config.training.total_epochs else "float32"
        config.model.dtype = recorded.model.dtype if recorded else chosen
    if config.data.source in SOURCES and SOURCES[config.data.source].located_by != "name":
        config.data.name = recorded.data.name if recorded else ""  # of another source, such as that of the config file
    _choose_options(config, recorded, weights)
    found = _choose_reading(config, recorded, weights)
    config.data.crop_fraction = config.data.crop_fraction or 1.0
    return Choices(config, found)


def _choose_options(config: Config, recorded: Config | None, weights: ReadWeights | None) -> None:
    """Set options of the model that the config leaves open, in place."""
    chosen: dict[str, Any] = dict(weights.options) if weights else {}
    is_new = not weights and not recorded
    if is_new and config.data.like_weights and not config.model.weights.startswith("anchoring:"):
        chosen = {"stem": "imagenet"}  # of all published ResNets but those of the released code
    if recorded and "stem" in recorded.model.options:
        chosen = {"stem": recorded.model.options.stem}
    if config.model.stochastic_depth >= 0:
        chosen["stochastic_depth"] = config.model.stochastic_depth
    config.model.stochastic_depth = -1.0
    known, options = option_names(config.model.name), config.model.options
    options.update({option: value for option, value in chosen.items() if option in known and option not in options})


def _choose_reading(config: Config, recorded: Config | None, weights: ReadWeights | None) -> str:
    """Set what is open of `config.data`, in place; return where it comes from."""
    data = config.data
    is_like_weights, data.like_weights = data.like_weights, False
    if not is_like_weights:
        return ""
    is_open = [name for name, value in _OPEN.items() if data[name] == value]
    if recorded:
        data.update({name: recorded.data[name] for name in is_open})
        return ""
    found = _preprocessing(config)
    if not found:
        return "as the config says, because that of the weights is not known"
    if data.source in SOURCES and not SOURCES[data.source].is_encoded:  # arrays are not resized
        is_open = [name for name in is_open if name in ("mean", "std")]
    elif weights and weights.image_size():
        found = found._replace(image_size=weights.image_size())
    notes = list(found.notes)
    num_channels = {mode: channels for channels, mode in MODES.items()}.get(data.mode)
    if num_channels and num_channels != len(found.mean):
        is_open = [name for name in is_open if name not in ("mean", "std")]
        notes.append("whose mean and std are of images in color")
    data.update({name: getattr(found, name) for name in is_open})
    return "; ".join(_texts(found.stated_by, is_open, notes))


def _texts(stated_by: str, chosen: list[str], notes: list[str]) -> list[str]:
    kept = [name for name in _OPEN if name not in chosen]
    except_for = f", except for {', '.join(kept)}" if kept and chosen else ""
    return [f"{stated_by}{except_for}" if chosen else "as the config says", *notes]


def _preprocessing(config: Config) -> SourcePreprocessing | None:
    """Return that of the source of the weights, or of torchvision if there are no weights."""
    name, options = config.model.name, config.model.options.to_dict()
    if name not in MODELS:
        return None  # creating the model is an error
    source, file, _ = source_and_file(config.model.weights or f"{_NO_WEIGHTS}{name}")
    return preprocessing_of(file, source, name, options)
