"""From PyTorch state dictionaries to our variables and back, by the tables of `names`."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError, UserTypeError
from anchor_jax.models.layers import Classifier
from anchor_jax.models.pytorch.names import NAMES, SOURCES, Names, Third
from anchor_jax.models.registry import MODELS, create
from anchor_jax.models.resnet import CIFAR, STEM_SIZES, ResNet
from anchor_jax.models.swin_v2 import SwinV2, relative_positions

Path = tuple[str, ...]  # of one of our variables: collection, modules and leaf
Shape = tuple[int, ...]
Tensors = dict[str, np.ndarray]  # by their names in PyTorch
Places = dict[Path, tuple[str, ...] | Third]  # the tensors in which our variables are

# what wrappers put before all names: data parallelism, `torch.compile`, the released code's anchoring
WRAPPERS = ("module.", "_orig_mod.", "net.")
# no weights: counters, and what a network computes from its options
COMPUTED = ("num_batches_tracked", "n_averaged", "relative_coords_table", "relative_position_index", "attn_mask")
# what the tensors may have any number of, along their second axis: channels of the input, and positions
FREE: set[Path] = {
    ("params", "stem_conv", "kernel"),
    ("params", "patch_embedding", "kernel"),
    ("params", "position_embedding"),
}
LISTED = 4  # names in an error, of each kind


def from_torch(
    name: str, state_dict: Mapping[str, Any], num_classes: int | None, source: str, **options: Any
) -> dict[str, Any]:
    """Variables of a model from the state dictionary of a PyTorch network.

    Every tensor is used, but for those that hold no weights, such as the counters of BatchNorm; none is made up.

    Args:
      name: of the model, see `create`.
      state_dict: name -> tensor of PyTorch, or array; what `torch.nn.DataParallel`, `torch.compile` and the released
        code's wrapper put before all names is taken away.
      num_classes: number of logits, as many as the network has; None: however many those are.
      source: who wrote the network: "torchvision", "timm", "huggingface" (transformers), or "anchoring", the released
        code (LLNL/anchoring).
      **options: of the model, see `create`; the stem of a ResNet is told from the tensors where it is not given.

    Returns:
      A dictionary of "params", and "batch_stats" where the model has BatchNorm, float32. The first layer has as many
      input channels as the network's, and there are as many positions.

    Raises:
      UserTypeError: `name` or `source` is no string, `state_dict` no mapping of names to tensors, or `num_classes` no
        integer.
      UserError: the model, the source or an option is unknown, or a tensor is missing, left over or of another shape.
    """
    tables = _tables(name, source)
    checks.instance("state_dict", state_dict, Mapping, "torch.nn.Module.state_dict()")
    tensors = _unwrapped({key: _array(key, tensor) for key, tensor in state_dict.items()})
    if num_classes is None:
        num_classes = _shape_of(("head", "bias"), tables, tensors, default=(2,))[0]
    stem: dict[str, Any] = {}
    if MODELS[name][0] is ResNet:
        side = _shape_of(("stem_conv", "kernel"), tables, tensors, default=(3,))[-1]
        stem = {"stem": STEM_SIZES.get(side, CIFAR)}
    model = create(name, num_classes, **stem | options)
    shapes = _shapes(model)
    places = max(_all_places(shapes, tables), key=lambda places: len(tensors.keys() & _names(places)))
    _check(tensors, places, shapes, _computed(model, places), f"the tensors are not those of {source}'s '{name}'")
    return unflatten_dict({path: jnp.asarray(_read(tensors, place, path)) for path, place in places.items()})


def to_torch(name: str, variables: Mapping[str, Any], source: str, **options: Any) -> dict[str, Any]:
    """The state dictionary of a PyTorch network from variables of a model, as its `load_state_dict` takes it.

    The inverse of `from_torch`; counters of BatchNorm are 0.

    Args:
      name: of the model, see `create`.
      variables: what `model.apply` takes.
      source: who wrote the network, see `from_torch`. Names are those of its newest version.
      **options: of the model, see `create`.

    Returns:
      Name -> `torch.Tensor`.

    Raises:
      UserTypeError: `name` or `source` is no string, or `variables` no mapping of mappings of arrays.
      UserError: the model, the source or an option is unknown, the variables are of another model, or PyTorch is not
        installed.
    """
    arrays = to_arrays(name, variables, source, **options)
    try:
        import torch
    except ImportError as error:
        raise UserError("to_torch needs PyTorch, which is not installed: pip install torch") from error
    return {key: torch.tensor(array) for key, array in arrays.items()}


def to_arrays(name: str, variables: Mapping[str, Any], source: str, **options: Any) -> Tensors:
    """As `to_torch`, with arrays in place of tensors; PyTorch is not needed."""
    tables = _tables(name, source)
    checks.instance("variables", variables, Mapping, "model.init")
    ours = {
        path: _array("/".join(map(str, path)), variable) for path, variable in flatten_dict(dict(variables)).items()
    }
    try:
        num_classes = len(ours["params", "head", "bias"])
        side = len(ours["params", "stem_conv", "kernel"]) if MODELS[name][0] is ResNet else 3
    except KeyError as error:
        raise UserError(f"the variables are not those of '{name}': they have no {error}") from error
    stem: dict[str, Any] = {"stem": STEM_SIZES.get(side, CIFAR)} if MODELS[name][0] is ResNet else {}
    model = create(name, num_classes, **stem | options)
    shapes = _shapes(model)
    misshapen = {path for path in ours.keys() & shapes.keys() - FREE if ours[path].shape != shapes[path]}
    if others := (ours.keys() ^ shapes.keys()) or misshapen:
        raise UserError(f"the variables are not those of '{name}': {_some('/'.join(path) for path in others)}")
    places = _all_places(ours, tables)[0]
    tensors: Tensors = {}
    for path, place in places.items():
        _write(tensors, place, path, ours[path])
    holds_positions = tables[0].holds_positions
    return tensors | {
        key: array for key, array in _computed(model, places).items() if array.ndim == 0 or holds_positions
    }


def _tables(name: str, source: str) -> tuple[Names, ...]:
    """The tables of a model's family and a source."""
    checks.known("model", name, MODELS)
    checks.known("source", source, SOURCES)
    sources = NAMES.get(MODELS[name][0], {})
    if source not in sources:
        raise UserError(f"{source} has no '{name}'; allowed sources: {', '.join(sources) or 'none'}")
    return sources[source]


def _array(key: Any, tensor: Any) -> np.ndarray:
    """A tensor of PyTorch or an array as an array, float32 where it is not of whole numbers; `key` is its name."""
    if not isinstance(key, str) or not hasattr(tensor, "dtype"):
        raise UserTypeError(
            f"weights must be tensors or arrays by their names, got {type(tensor).__name__} as {key!r}; of a "
            "checkpoint that holds more, give the state dictionary alone"
        )
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        tensor = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # NumPy has no bfloat16
    array = np.asarray(tensor)
    checks.array(f"tensor '{key}'", array, "real", "[...]")
    return array if np.issubdtype(array.dtype, np.integer) else array.astype(np.float32)


def _unwrapped(tensors: Tensors) -> Tensors:
    """Without what wrappers put before all names, and without the counter of an average of weights."""
    tensors = {key: tensor for key, tensor in tensors.items() if key != "n_averaged"}
    for wrapper in WRAPPERS:
        if tensors and all(key.startswith(wrapper) for key in tensors):
            return _unwrapped({key.removeprefix(wrapper): tensor for key, tensor in tensors.items()})
    return tensors


def _shape_of(path: Path, tables: Iterable[Names], tensors: Tensors, *, default: Shape) -> Shape:
    """The shape of the tensor that is a variable of ours, by whichever table finds it."""
    found = [tensors[key] for names in tables for key in names.place(path) or () if key in tensors]
    return found[0].shape if found and found[0].ndim else default


def _shapes(model: Classifier) -> dict[Path, Shape]:
    """The shapes of all variables of a model, for some number of channels and positions."""
    side = 2 * getattr(model, "patch_size", 16)
    variables: Any = jax.eval_shape(
        model.init, jax.eval_shape(jax.random.key, 0), jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    )
    flat: Any = flatten_dict(variables)
    return {path: leaf.shape for path, leaf in flat.items()}


def _all_places(paths: Iterable[Path], tables: Iterable[Names]) -> list[Places]:
    """Where our variables are, by each table that knows of all of them."""
    by_table = [{path: names.place(path[1:]) for path in paths} for names in tables]
    known: list[Any] = [places for places in by_table if all(places.values())]
    if not known:
        without = ("/".join(path[1:]) for path, place in by_table[0].items() if place is None)
        raise UserError(f"no network of this source has {_some(without)}; choose another source or other options")
    return known


def _names(places: Places) -> set[str]:
    """The names of all tensors."""
    return {name for place in places.values() for name in ((place.name,) if isinstance(place, Third) else place)}


def _read(tensors: Tensors, place: tuple[str, ...] | Third, path: Path) -> np.ndarray:
    """One of our variables; PyTorch has outputs before inputs, and both before height and width."""
    if isinstance(place, Third):
        return np.split(tensors[place.name], 3)[place.which]
    tensor = np.concatenate([tensors[name] for name in place])
    return np.moveaxis(tensor, (0, 1), (-1, -2)) if path[-1] == "kernel" else tensor


def _write(tensors: Tensors, place: tuple[str, ...] | Third, path: Path, variable: np.ndarray) -> None:
    """The inverse of `_read`; the third that is not one of our variables is zero."""
    if isinstance(place, Third):
        whole = tensors.setdefault(place.name, np.zeros(3 * len(variable), variable.dtype))
        np.split(whole, 3)[place.which][:] = variable
        return
    tensor = np.moveaxis(variable, (-1, -2), (0, 1)) if path[-1] == "kernel" else variable
    tensors.update(zip(place, np.split(tensor, len(place)), strict=True))


def _computed(model: Classifier, places: Places) -> Tensors:
    """What a PyTorch network may hold beside weights: counters of BatchNorm, tables of relative positions."""
    tensors: Tensors = {}
    for path, place in places.items():
        at = place[0].rpartition(".")[0]
        if path[-1] == "mean":
            tensors[f"{at}.num_batches_tracked"] = np.array(0)
        if path[-1] == "logit_scale" and isinstance(model, SwinV2):
            table, index = relative_positions(model.window, model.pretrained_window or model.window)
            sides = 2 * model.window - 1
            tensors[f"{at}.relative_coords_table"] = table.reshape(1, sides, sides, 2)
            tensors[f"{at}.relative_position_index"] = index.ravel()
    return tensors


def _check(tensors: Tensors, places: Places, shapes: dict[Path, Shape], computed: Tensors, what: str) -> None:
    """Every tensor is wanted, none is missing, and all have their shapes."""
    wanted: Tensors = {}
    for path, place in places.items():
        _write(wanted, place, path, np.zeros(shapes[path]))
    given = {key for key in tensors if key.rpartition(".")[-1] not in COMPUTED}
    free = _names({path: places[path] for path in FREE & places.keys()})
    problems = {
        "missing": wanted.keys() - given,
        "left over": given - wanted.keys(),
        "of another shape": {
            f"{key} {list(tensors[key].shape)}, not {list(wanted[key].shape)}"
            for key in wanted.keys() & given
            if not _fits(tensors[key].shape, wanted[key].shape, free=key in free)
        },
        "of another window": {
            key for key in computed.keys() & tensors.keys() if computed[key].size != tensors[key].size
        },
    }
    told = "; ".join(f"{problem}: {_some(these)}" for problem, these in problems.items() if these)
    if told:
        raise UserError(f"{what}, {told}; give the source, the number of classes and the options of the network")


def _fits(shape: Shape, wanted: Shape, *, free: bool) -> bool:
    """Whether two shapes are the same, but for the second axis where it is free."""
    return shape == wanted or (free and len(shape) == len(wanted) and shape[:1] + shape[2:] == wanted[:1] + wanted[2:])


def _some(names: Iterable[str]) -> str:
    """The first few of some names."""
    named = sorted(names)
    return ", ".join(named[:LISTED]) + (f" and {len(named) - LISTED} more" if len(named) > LISTED else "")
