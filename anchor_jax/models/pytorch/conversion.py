"""Conversion between PyTorch state dicts and Flax variables, by the tables in `names`."""

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError, UserTypeError
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.models.layers import Classifier
from anchor_jax.models.pytorch import fitting
from anchor_jax.models.pytorch.entries import listed
from anchor_jax.models.pytorch.names import NAME_TABLES, SOURCES, NameTable, QKVSlice, TensorNames
from anchor_jax.models.pytorch.networks import find_network
from anchor_jax.models.registry import MODELS, create
from anchor_jax.models.resnet import ResNet
from anchor_jax.models.swin_v2 import SwinV2, relative_positions

if TYPE_CHECKING:
    import torch

Path = tuple[str, ...]  # of a variable: collection, modules, leaf
Shape = tuple[int, ...]
Tensors = dict[str, np.ndarray]  # a state dict as NumPy arrays
NameMap = dict[Path, TensorNames]

# last parts of the names of buffers: counters, and tables that a network computes from its options
_BUFFERS = ("num_batches_tracked", "n_averaged", "relative_coords_table", "relative_position_index", "attn_mask")
# variables whose tensors may have any size along their second axis: input channels, or positions
_ANY_SECOND_AXIS: set[Path] = {
    ("params", "stem_conv", "kernel"),
    ("params", "patch_embedding", "kernel"),
    ("params", "position_embedding"),
}
_HEAD: set[Path] = {("params", "head", "kernel"), ("params", "head", "bias")}
_MAX_LISTED = 4  # names of each kind in an error message

_log = logging.getLogger(__name__)


@short_repr
class Converted(NamedTuple):
    """Variables read from a state dict.

    Attributes:
      variables: nested, as `model.apply` takes them; without the head if the state dict has none.
      num_tensors: number of tensors that they were read from.
      notes: one description of each choice and of what was left out, for the user.
    """

    variables: dict[str, Any]
    num_tensors: int
    notes: tuple[str, ...]


def from_torch(
    name: str, state_dict: Mapping[str, Any], num_classes: int | None, source: str, **options: Any
) -> dict[str, Any]:
    """Convert the state dict of a PyTorch network to the variables of a model.

    All weights must match: a tensor that is missing, unexpected or of the wrong shape is an error. Buffers without
    weights, such as the counters of BatchNorm, are ignored.

    The network may be in a module of the state dict, such as "model." of a Lightning module. Tensors outside of it and
    parts that only pretraining uses are left out, which is logged. If several modules hold such a network, an average
    of the weights ("ema") is preferred, and then the first.

    Args:
      name: name of the model, see `create`.
      state_dict: PyTorch tensors or arrays by name. Names that wrappers such as `torch.nn.DataParallel` and
        `torch.compile` add are removed.
      num_classes: number of logits of the network, or None to infer it from the tensors; without a head, the variables
        have none either.
      source: origin of the network: "torchvision", "timm", "huggingface" (transformers) or "anchoring" (the released
        code, LLNL/anchoring).
      **options: options of the model, see `create`. The stem of a ResNet is inferred from the tensors by default.

    Returns:
      Variables for `model.apply`: "params" and, with BatchNorm, "batch_stats", float32. Input channels and positions
      are as many as in the network.

    Raises:
      UserTypeError: `name` or `source` is not a string, `state_dict` is not a mapping of names to tensors, or
        `num_classes` is not an integer.
      UserError: the model, the source or an option is unknown, or a tensor is missing, unexpected or of the wrong
        shape.

    Example:
      >>> import anchor_jax as aj
      >>> import jax, jax.numpy as jnp
      >>> options = {"stage_sizes": (1,), "width": 4}
      >>> model = aj.models.create("resnet18", num_classes=3, **options)
      >>> variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
      >>> state_dict = aj.models.to_torch("resnet18", variables, "torchvision", **options)
      >>> converted = aj.models.from_torch("resnet18", state_dict, 3, "torchvision", **options)
      >>> bool(jnp.array_equal(converted["params"]["head"]["kernel"], variables["params"]["head"]["kernel"]))
      True
    """
    converted = convert(name, state_dict, num_classes, source, options)
    notes = converted.notes if "head" in converted.variables["params"] else (*converted.notes, "no head")
    if notes:
        _log.warning("weights of '%s': %s", name, "; ".join(notes))
    return converted.variables


def convert(
    name: str,
    state_dict: Mapping[str, Any],
    num_classes: int | None,
    source: str,
    options: Mapping[str, Any],
    *,
    stated: Mapping[str, Any] | None = None,
    flag: str = "",
) -> Converted:
    """Convert a state dict as `from_torch` does, and return what was chosen and left out.

    Args:
      name: see `from_torch`.
      state_dict: see `from_torch`.
      num_classes: see `from_torch`.
      source: see `from_torch`.
      options: see `from_torch`.
      stated: options that the files beside the weights state, see `fitting.stated_options`.
      flag: what precedes an option in an error message, such as "--config.model.options.".
    """
    checks.instance("state_dict", state_dict, Mapping, "torch.nn.Module.state_dict()")
    for key, tensor in state_dict.items():
        _check_tensor(key, tensor)
    try:
        return _convert(name, state_dict, num_classes, source, dict(options))
    except UserTypeError:
        raise
    except UserError as error:
        of_file = {"num_classes": num_classes, "stated": dict(stated or {}), "flag": flag}
        hint = fitting.hint(name, dict(options), state_dict, source, **of_file)
        raise UserError(f"{error}; {hint}" if hint else str(error)) from error


def _convert(
    name: str, state_dict: Mapping[str, Any], num_classes: int | None, source: str, options: dict[str, Any]
) -> Converted:
    tables = _name_tables(name, source)
    network = find_network(state_dict, tables)
    tensors = {key: _to_array(key, tensor) for key, tensor in network.tensors.items()}
    has_head = network.has_head or num_classes is not None
    if num_classes is None:
        num_classes = _tensor_shape(("head", "bias"), tables, tensors, default=(2,))[0] if has_head else 2
    kernel_shape = _tensor_shape(("stem_conv", "kernel"), tables, tensors, default=(3,))
    model = create(name, num_classes, **_infer_stem(name, kernel_shape[-1]) | options)
    shapes = {path: shape for path, shape in _variable_shapes(model).items() if has_head or path not in _HEAD}
    name_map = max(_name_maps(shapes, tables), key=lambda candidate: len(tensors.keys() & _all_names(candidate)))
    _check_tensors(tensors, name_map, shapes, _buffers(model, name_map), network=f"{source}'s '{name}'")
    variables = unflatten_dict({path: jnp.asarray(_read(tensors, names, path)) for path, names in name_map.items()})
    return Converted(variables, len(_all_names(name_map)), network.notes)


def to_torch(name: str, variables: Mapping[str, Any], source: str, **options: Any) -> "dict[str, torch.Tensor]":
    """Convert the variables of a model to the state dict of a PyTorch network, for its `load_state_dict`.

    This inverts `from_torch`; counters of BatchNorm become 0.

    Args:
      name: name of the model, see `create`.
      variables: variables of the model, as `model.apply` takes them.
      source: origin of the network, see `from_torch`. Names are those of its newest version.
      **options: options of the model, see `create`.

    Returns:
      `torch.Tensor` by name.

    Raises:
      UserTypeError: `name` or `source` is not a string, or `variables` is not a nested mapping of arrays.
      UserError: the model, the source or an option is unknown, the variables belong to another model, or PyTorch is not
        installed.

    Example:
      >>> import anchor_jax as aj
      >>> import jax, jax.numpy as jnp
      >>> options = {"stage_sizes": (1,), "width": 4}
      >>> model = aj.models.create("resnet18", num_classes=3, **options)
      >>> variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
      >>> state_dict = aj.models.to_torch("resnet18", variables, "torchvision", **options)
      >>> state_dict["fc.weight"].shape
      torch.Size([3, 4])
    """
    arrays = to_arrays(name, variables, source, **options)
    try:
        import torch
    except ImportError as error:
        raise UserError("to_torch needs PyTorch, which is not installed; run pip install torch") from error
    return {key: torch.tensor(array) for key, array in arrays.items()}


def to_arrays(name: str, variables: Mapping[str, Any], source: str, **options: Any) -> Tensors:
    """Convert variables as `to_torch` does, but to NumPy arrays; PyTorch is not needed."""
    tables = _name_tables(name, source)
    checks.instance("variables", variables, Mapping, "model.init")
    flat = {path: _to_array("/".join(map(str, path)), leaf) for path, leaf in flatten_dict(dict(variables)).items()}
    mismatch = f"the variables do not match '{name}'"
    try:
        num_classes = len(flat["params", "head", "bias"])
        kernel_size = len(flat["params", "stem_conv", "kernel"]) if MODELS[name].family is ResNet else 3
    except KeyError as error:
        raise UserError(f"{mismatch}; missing: {'/'.join(error.args[0])}") from error
    model = create(name, num_classes, **_infer_stem(name, kernel_size) | options)
    shapes = _variable_shapes(model)
    fixed_shapes = flat.keys() & shapes.keys() - _ANY_SECOND_AXIS
    wrong_shapes = {path for path in fixed_shapes if flat[path].shape != shapes[path]}
    if wrong := (flat.keys() ^ shapes.keys()) or wrong_shapes:
        raise UserError(
            f"{mismatch}; missing, unexpected or of wrong shape: {_listed('/'.join(path) for path in wrong)}"
        )
    name_map = _name_maps(flat, tables)[0]
    tensors: Tensors = {}
    for path, names in name_map.items():
        _write(tensors, names, path, flat[path])
    buffers = _buffers(model, name_map)
    if not tables[0].has_position_buffers:
        buffers = {key: buffer for key, buffer in buffers.items() if buffer.ndim == 0}  # the counters
    return tensors | buffers


def _name_tables(name: str, source: str) -> tuple[NameTable, ...]:
    """Return the tables of a model's family and a source."""
    checks.known("model", name, MODELS)
    checks.known("source", source, SOURCES)
    tables = NAME_TABLES.get(MODELS[name].family, {})
    if source not in tables:
        raise UserError(f"{source} has no '{name}'; allowed sources: {', '.join(tables) or 'none'}")
    return tables[source]


def _check_tensor(name: Any, tensor: Any) -> None:
    """Raise unless this is a tensor or an array with its name."""
    if not isinstance(name, str) or not hasattr(tensor, "dtype"):
        raise UserTypeError(
            f"weights must be tensors or arrays by name; got {type(tensor).__name__} as {name!r}; if this is a "
            "checkpoint, pass only the state dict in it"
        )


def _to_array(name: str, tensor: Any) -> np.ndarray:
    """Convert a PyTorch tensor or an array to NumPy; floating dtypes become float32."""
    _check_tensor(name, tensor)
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        try:
            tensor = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # NumPy has no bfloat16
        except (RuntimeError, TypeError) as error:
            raise UserTypeError(
                f"tensor '{name}' must be a dense array; got one that is sparse, quantized or without values; convert "
                "it in PyTorch"
            ) from error
    array = np.asarray(tensor)
    checks.array(f"tensor '{name}'", array, "real", "[...]")
    return array if np.issubdtype(array.dtype, np.integer) else array.astype(np.float32)


def _tensor_shape(path: Path, tables: Iterable[NameTable], tensors: Tensors, *, default: Shape) -> Shape:
    """Return the shape of the tensor of a variable, by the first table whose name for it is present."""
    candidates = [tensors[name] for table in tables for name in table.tensor_names(path) or () if name in tensors]
    return candidates[0].shape if candidates and candidates[0].ndim else default


def _infer_stem(name: str, kernel_size: int) -> dict[str, Any]:
    """Return the option `stem` of a ResNet by the kernel size of its first convolution; nothing for other families."""
    if MODELS[name].family is not ResNet:
        return {}
    return {"stem": "imagenet" if kernel_size == 7 else "cifar"}


def _variable_shapes(model: Classifier) -> dict[Path, Shape]:
    """Return the shapes of all variables, for an arbitrary number of input channels and positions."""
    side = 2 * getattr(model, "patch_size", 16)
    variables: Any = jax.eval_shape(
        model.init, jax.eval_shape(jax.random.key, 0), jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    )
    flat: Any = flatten_dict(variables)
    return {path: leaf.shape for path, leaf in flat.items()}


def _name_maps(paths: Iterable[Path], tables: Iterable[NameTable]) -> list[NameMap]:
    """Return the names of the tensors of all variables, by each table that has all of them."""
    candidates = [{path: table.tensor_names(path[1:]) for path in paths} for table in tables]
    complete: list[Any] = [names for names in candidates if all(names.values())]
    if not complete:
        absent = ("/".join(path[1:]) for path, names in candidates[0].items() if names is None)
        raise UserError(f"no network of this source has {_listed(absent)}; set another source or other options")
    return complete


def _all_names(name_map: NameMap) -> set[str]:
    """Return the names of all tensors in a map."""
    return {name for names in name_map.values() for name in ((names.tensor,) if isinstance(names, QKVSlice) else names)}


def _read(tensors: Tensors, names: TensorNames, path: Path) -> np.ndarray:
    """Return a variable; PyTorch orders kernels as (outputs, inputs, height, width)."""
    if isinstance(names, QKVSlice):
        return np.split(tensors[names.tensor], 3)[names.part]
    tensor = np.concatenate([tensors[name] for name in names])
    return np.moveaxis(tensor, (0, 1), (-1, -2)) if path[-1] == "kernel" else tensor


def _write(tensors: Tensors, names: TensorNames, path: Path, variable: np.ndarray) -> None:
    """Invert `_read`; a third of a `QKVSlice` tensor without a variable stays zero."""
    if isinstance(names, QKVSlice):
        qkv = tensors.setdefault(names.tensor, np.zeros(3 * len(variable), variable.dtype))
        np.split(qkv, 3)[names.part][:] = variable
        return
    tensor = np.moveaxis(variable, (-1, -2), (0, 1)) if path[-1] == "kernel" else variable
    tensors.update(zip(names, np.split(tensor, len(names)), strict=True))


def _buffers(model: Classifier, name_map: NameMap) -> Tensors:
    """Return the buffers that a PyTorch network may have: counters of BatchNorm, tables of relative positions."""
    buffers: Tensors = {}
    for path, names in name_map.items():
        module = names[0].rpartition(".")[0]
        if path[-1] == "mean":
            buffers[f"{module}.num_batches_tracked"] = np.array(0)
        if path[-1] == "logit_scale" and isinstance(model, SwinV2):
            table, index = relative_positions(model.window, model.pretrained_window or model.window)
            side = 2 * model.window - 1
            buffers[f"{module}.relative_coords_table"] = table.reshape(1, side, side, 2)
            buffers[f"{module}.relative_position_index"] = index.ravel()
    return buffers


def _check_tensors(
    tensors: Tensors, name_map: NameMap, shapes: dict[Path, Shape], buffers: Tensors, *, network: str
) -> None:
    """Raise unless the tensors are exactly those of the network, with their shapes."""
    expected: Tensors = {}
    for path, names in name_map.items():
        _write(expected, names, path, np.zeros(shapes[path]))
    weights = {name for name in tensors if name.rpartition(".")[-1] not in _BUFFERS}
    any_second_axis = _all_names({path: name_map[path] for path in _ANY_SECOND_AXIS & name_map.keys()})
    problems = {
        "missing": expected.keys() - weights,
        "unexpected": weights - expected.keys(),
        "wrong shape": {
            f"{name} {list(tensors[name].shape)} instead of {list(expected[name].shape)}"
            for name in expected.keys() & weights
            if not _same_shape(tensors[name].shape, expected[name].shape, any_second_axis=name in any_second_axis)
        },
        "integers": {name for name in expected.keys() & weights if np.issubdtype(tensors[name].dtype, np.integer)},
        "wrong window": {name for name in buffers.keys() & tensors.keys() if buffers[name].size != tensors[name].size},
    }
    details = "; ".join(f"{problem}: {_listed(names)}" for problem, names in problems.items() if names)
    if details:
        head = _all_names({path: name_map[path] for path in _HEAD & name_map.keys()})
        hint = ", or pass num_classes=None to read the features only" if problems["missing"] == head else ""
        raise UserError(
            f"the tensors do not match {network}; {details}; check the source, the number of classes and the options"
            + hint
        )


def _same_shape(shape: Shape, expected: Shape, *, any_second_axis: bool) -> bool:
    """Return whether two shapes are equal, optionally except for their second axis."""
    if any_second_axis and len(shape) == len(expected):
        return shape[:1] + shape[2:] == expected[:1] + expected[2:]
    return shape == expected


def _listed(names: Iterable[str]) -> str:
    """Return the first few names, sorted, and the number of the others."""
    return listed(sorted(names), _MAX_LISTED)
