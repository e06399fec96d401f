"""Public functions return the same under settings of JAX that the caller has on, and for arrays of any sharding."""

import contextlib
import functools
import inspect
import itertools
import types

import jax
import numpy as np
import pytest
from conftest import assert_same_bits
from conftest import records as records_of
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from public_calls import AUGMENTATION, CALLS, CONTRIB, CORE, METRICS, WITHOUT_ARRAYS, Bank, Rows
from tiny_models import TINY

import anchor_jax as aj
from anchor_jax.data import augmentation, corruptions
from anchor_jax.export.write import export
from anchor_jax.training import train

EXPLICIT, AUTO = AxisType.Explicit, AxisType.Auto

pytestmark = pytest.mark.filterwarnings("ignore:The default axis_types:DeprecationWarning")

MODULES = {name: getattr(aj, name) for name in aj.__all__ if isinstance(getattr(aj, name), types.ModuleType)} | {
    "data.augmentation": augmentation,
    "data.corruptions": corruptions,
}


def public_functions():
    """Yield the shortest name of every public function of the package."""
    seen = set()
    for module, prefix in [(aj, ""), *((module, f"{name}.") for name, module in MODULES.items())]:
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        for name in getattr(module, "__all__", [name for name in own if not name.startswith("_")]):
            value = getattr(module, name)
            if inspect.isfunction(value) and value not in seen:
                seen.add(value)
                yield prefix + name


def test_every_public_function_is_called_or_takes_no_arrays():
    called = {name.split(",")[0] for name in CALLS}
    assert set(public_functions()) - called == WITHOUT_ARRAYS


def place(argument, put):
    """Create the arrays of an argument by `put(value, kind)`."""
    kind, value = (type(argument), argument.value) if isinstance(argument, Rows | Bank) else (None, argument)
    return jax.tree.map(lambda leaf: put(leaf() if callable(leaf) else leaf, kind), value)


def to_host(tree):
    return jax.tree.map(np.asarray, tree)


@functools.cache
def expected(name):
    arguments = [place(argument, lambda value, _: jax.numpy.asarray(value)) for argument in CALLS[name].arguments]
    return to_host(jax.jit(CALLS[name].function)(*arguments))


def assert_as_expected(found, name):
    def compare(found, expected):
        assert found.dtype == expected.dtype
        exact = not np.issubdtype(found.dtype, np.floating)
        np.testing.assert_allclose(found, expected, **({"rtol": 0} if exact else {"rtol": 1e-4, "atol": 1e-5}))

    jax.tree.map(compare, to_host(found), expected(name))


@contextlib.contextmanager
def raising():
    """Turn on every setting that makes JAX raise."""
    with (
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
        jax.debug_nans(True),
        jax.debug_infs(True),
        jax.transfer_guard("disallow"),
    ):
        yield


@contextlib.contextmanager
def raising_in_64_bits():
    with jax.enable_x64(True), raising():
        yield


@pytest.mark.parametrize(
    ("name", "settings"),
    [*itertools.product(CALLS, [raising_in_64_bits]), *itertools.product(CORE | CONTRIB, [raising])],
)
def test_public_function_under_settings_returns_the_same(name, settings):
    arguments = [place(argument, lambda value, _: jax.numpy.asarray(value)) for argument in CALLS[name].arguments]
    with settings():
        found = jax.jit(CALLS[name].function)(*arguments)
    assert_as_expected(found, name)


def test_run_under_settings_and_another_mesh_is_the_same(tiny, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 1)).astype(np.uint8)

    def run_in(workdir):
        train(tiny, workdir)
        export(workdir, workdir / "run.zip", num_references=2)
        answers = aj.load_predictor(workdir)(images, 4), aj.load_exported(workdir / "run.zip")(images)
        return records_of(workdir), answers

    records, answers = run_in(tmp_path / "plain")
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(EXPLICIT, EXPLICIT))
    with raising_in_64_bits(), jax.set_mesh(mesh):
        other_records, other_answers = run_in(tmp_path / "other")
    assert records == other_records
    assert_same_bits(answers, other_answers)


class Layout:
    """A mesh, and the axis that `Bank` arrays are sharded over; `Rows` are sharded over "data"."""

    def __init__(self, shape, types, bank):
        self.mesh = jax.make_mesh(shape, ("data", "model")[: len(shape)], axis_types=types)
        self.bank = bank

    def put(self, value, kind):
        axis = {Rows: "data", Bank: self.bank, None: None}[kind]
        return jax.device_put(value, NamedSharding(self.mesh, PartitionSpec(axis) if axis else PartitionSpec()))


LAYOUTS = {
    "1-D, jit": ((4,), (EXPLICIT,), "data"),
    "2-D": ((4, 2), (EXPLICIT, EXPLICIT), "model"),
    "mixed, jit": ((2, 2), (EXPLICIT, AUTO), "data"),
}


def layouts_of_calls():
    """Yield all layouts for functions that call a model, and one of them for the others, which share a decorator."""
    layouts = itertools.cycle(LAYOUTS)
    for name in CORE | CONTRIB | METRICS | AUGMENTATION:
        calls_model = name.startswith(
            ("Anchored,", "anchored,", "predict", "classify", "EncodedReferences", "inference.", "pager.")
        )
        yield from itertools.product([name], LAYOUTS if calls_model else [next(layouts)])
    yield from itertools.product(["data.corrupt, contrast", "data.corrupt, fog"], ["mixed, jit"])


@pytest.mark.parametrize(("name", "layout"), list(layouts_of_calls()))
def test_public_function_of_explicit_sharding_returns_the_same(name, layout):
    placed = Layout(*LAYOUTS[layout])
    function = jax.jit(CALLS[name].function) if "jit" in layout else CALLS[name].function
    arguments = [place(argument, placed.put) for argument in CALLS[name].arguments]
    with jax.set_mesh(placed.mesh) if layout != "1-D, jit" else contextlib.nullcontext():
        found = function(*arguments)
    assert_as_expected(found, name)


def vmapped(call, layout):
    """Map over a leading axis that is sharded over "data"; return the results of its first entry."""
    stacked = [place(each, lambda value, _: layout.put(np.stack([value] * 4), Rows)) for each in call.arguments]
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0], jax.jit(jax.vmap(call.function))(*stacked))


def shard_mapped(call, layout):
    """Map by hand over "data", and leave "model" to the types."""
    arguments = [place(each, layout.put) for each in call.arguments]
    specs = tuple(PartitionSpec("data") if isinstance(each, Rows) else PartitionSpec() for each in call.arguments)
    mapped = jax.shard_map(call.function, in_specs=specs, out_specs=PartitionSpec("data"), axis_names={"data"})
    return jax.jit(mapped)(*arguments)


@pytest.mark.parametrize("transform", [vmapped, shard_mapped])
@pytest.mark.parametrize(
    "name",
    ["anchor", "classify", "anchored_cross_entropy, soft", "transductive_references", "pager.nonconformity"],
)
def test_transformed_function_of_explicit_sharding(name, transform):
    layout = Layout((4, 2), (EXPLICIT, EXPLICIT), "model")
    with jax.set_mesh(layout.mesh):
        assert_as_expected(transform(CALLS[name], layout), name)


@pytest.mark.parametrize("case", TINY)
def test_model_trains_under_strict_promotion_and_explicit_sharding(case):
    name, options, side = TINY[case]
    model = aj.models.create(name, 7, **options)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(EXPLICIT,))
    shape, rows = (4, side, side, 6), NamedSharding(mesh, PartitionSpec("data"))
    rngs = {"stochastic_depth": jax.random.key(1)}

    def loss(params, variables, inputs):
        logits, _ = model.apply({**variables, "params": params}, inputs, train=True, mutable=["batch_stats"], rngs=rngs)
        return logits.sum()

    with jax.set_mesh(mesh), jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        inputs = jax.ShapeDtypeStruct(shape, np.float32, sharding=rows)
        variables = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, np.float32))
        assert jax.eval_shape(model.apply, variables, inputs).sharding.spec == PartitionSpec("data", None)
        gradient = jax.eval_shape(jax.grad(loss), variables["params"], variables, inputs)
    assert jax.tree.map(lambda leaf: leaf.shape, gradient) == jax.tree.map(lambda leaf: leaf.shape, variables["params"])
