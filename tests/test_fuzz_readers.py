"""Readers and the config on input that nobody thought of: it loads, or a `UserError` says what is wrong.

The examples are the same every time; `ANCHOR_JAX_FUZZ=10000` tries as many others.
"""

import json
import os
import shutil
import zipfile

import jax
import jax.export
import numpy as np
import pytest
import safetensors.numpy
from corrupt_files import image, npz, prepared_set, zipped
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from anchor_jax import config as configuration
from anchor_jax.core.errors import UserError
from anchor_jax.data import load
from anchor_jax.data.decoding import Example, decode
from anchor_jax.evaluation import results as results_lib
from anchor_jax.export import format
from anchor_jax.models.pytorch.files import read_state_dict
from anchor_jax.runs import record as run_record

_MORE = int(os.environ.get("ANCHOR_JAX_FUZZ", "0"))


def fuzzed(num_examples: int):
    """Settings of a test that tries so many examples, always the same, or more where that is asked for."""
    return settings(
        max_examples=_MORE or num_examples,
        derandomize=not _MORE,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


def _done(action) -> bool:
    """Whether something was done; if it was not, one line says why."""
    try:
        action()
    except UserError as error:
        message = str(error)
    else:
        return True
    assert len(message.splitlines()) == 1
    return False


# --- the config -----------------------------------------------------------------------------------------

_KEYS = sorted(configuration.flatten(configuration.base()))

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, -1, 10**30, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=3),
    st.sampled_from(["sgd", "bank", "uniform", np.float32(0.5), np.int64(1), np.float64(1), np.array(1)]),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from(["a", "seed", "width"]), inner, max_size=2),
    ),
    max_leaves=4,
)


def _with_values(values):
    """A config with other values, whatever their types."""
    content = configuration.base().to_dict()
    for key, value in values.items():
        *groups, last = key.split(".")
        inner = content
        for group in groups:
            inner = inner[group] if isinstance(inner.get(group), dict) else inner.setdefault(f"{group}_", {})
        inner[last] = value
    return ConfigDict(content)


@fuzzed(300)
@given(st.dictionaries(st.sampled_from([*_KEYS, "model.options.width", "data", "training", "x"]), _VALUES, max_size=3))
@example({"model.options.width": (1, ("a", (True,)))})
@example({"data.mean": (10**400,)})
@example({"data.std": (np.float64(0.5),)})
@example({"optimizer.frozen": ("stem", 3)})
def test_a_config_is_refused_or_comes_back_from_json(values):
    given_config = _with_values(values)
    if not _done(lambda: configuration.validate(given_config)):
        return

    def restored(value):
        if isinstance(value, dict):
            return {key: restored(inner) for key, inner in value.items()}
        return tuple(map(restored, value)) if isinstance(value, list) else value

    read = configuration.base()
    read.update(restored(json.loads(json.dumps(given_config.to_dict(), allow_nan=False))))
    assert configuration.flatten(read) == configuration.flatten(given_config)


# --- files ----------------------------------------------------------------------------------------------


@st.composite
def _damages(draw):
    """What happens to the bytes of a file: some are flipped, and it is cut, or something is put in."""
    flips = draw(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=4))
    start, end = draw(st.floats(0, 1)), draw(st.floats(0, 1))
    inserted = draw(st.one_of(st.just(b""), st.binary(max_size=8)))

    def damage(content: bytes) -> bytes:
        damaged = bytearray(content)
        for place, mask in flips:
            damaged[int(place * len(damaged))] ^= mask
        low, high = sorted((int(start * len(damaged)), int(end * len(damaged))))
        kept = damaged if not inserted and high - low > len(damaged) // 2 else damaged[:low] + inserted + damaged[high:]
        return bytes(kept)

    return damage


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module", autouse=True)
def no_cache(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANCHOR_JAX_CACHE", str(place / "cache"))
        yield


def _reads(read):
    """What is read, or None with one line that says why not."""
    found_things = []
    return found_things[0] if _done(lambda: found_things.append(read())) else None


@fuzzed(100)
@given(st.sampled_from(["png", "jpeg", "bmp", "gif", "tiff", "webp", "ppm"]), _damages())
def test_damaged_images(kind, damage):
    content = damage(image(kind, 12))
    for size in (0, 4):
        pixels = _reads(lambda size=size: decode(Example(content, 0, "x"), mode="RGB", image_size=size))
        assert pixels is None or (pixels.dtype == np.uint8 and pixels.shape[2:] == (3,))


@fuzzed(60)
@given(_damages())
def test_damaged_npz(place, damage):
    arrays = {"x_train": np.zeros((4, 3, 2), np.uint8), "y_train": np.array([0, 1, 0, 1]), "label_names": ["a", "b"]}
    (place / "data.npz").write_bytes(damage(npz(**arrays)))
    dataset = _reads(lambda: load("npz", "train", path=place / "data.npz"))
    assert dataset is None or len(dataset.images) == len(dataset.labels)


@pytest.fixture(scope="module")
def prepared(place):
    folder = prepared_set(place / "tfds")
    return folder, {file: file.read_bytes() for file in folder.iterdir()}


@fuzzed(60)
@given(st.sampled_from(["features.json", "dataset_info.json", "tiny-train.array_record-00000-of-00001"]), _damages())
def test_damaged_prepared_sets(prepared, name, damage):
    folder, files = prepared
    (folder / name).write_bytes(damage(files[folder / name]))
    try:
        dataset = _reads(lambda: load("tfds", "train", name="tiny", path=folder.parents[1]))
        assert dataset is None or len(dataset.images) == len(dataset.labels)
    finally:
        (folder / name).write_bytes(files[folder / name])


@fuzzed(60)
@given(_damages())
def test_damaged_safetensors(place, damage):
    file = place / "w.safetensors"
    file.write_bytes(damage(safetensors.numpy.save({"a": np.ones((2, 3), np.float32), "b": np.zeros(2, np.int64)})))
    tensors = _reads(lambda: read_state_dict(file))
    assert tensors is None or all(hasattr(tensor, "shape") for tensor in tensors.values())


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.just(10**400)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["1", "accuracy", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def exported_run(place):
    images = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 2, 2, 1"), np.uint8)

    def classify(images):
        each = images.sum((1, 2, 3), dtype=np.float32)
        both = each[:, None] * np.ones((1, 2), np.float32)
        return {"logits": both, "probs": both, "entropy": each, "mutual_information": each}

    program = jax.export.export(jax.jit(classify))(images)
    outputs = ("logits", "probs", "entropy", "mutual_information")
    metadata = format.Metadata(("a", "b"), (2, 2, 1), "mlp", 1, None, outputs, program.platforms, {})
    format.write_archive(place / "run.zip", program, metadata)
    with zipfile.ZipFile(place / "run.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


_OF_EXPORT = ["format", "label_names", "image_shape", "step", "num_references", "outputs", "platforms", "versions"]


@fuzzed(60)
@given(
    st.sampled_from([format.METADATA, format.PROGRAM]),
    st.dictionaries(st.sampled_from(_OF_EXPORT), _JSON),
    _damages(),
)
@example(format.PROGRAM, {}, lambda content: content)
def test_damaged_exported_runs(place, exported_run, name, changes, damage):
    (place / "damaged.zip").write_bytes(zipped(exported_run | {name: damage(exported_run[name])}))
    changed = json.dumps(json.loads(exported_run[format.METADATA]) | changes).encode()
    (place / "changed.zip").write_bytes(zipped(exported_run | {format.METADATA: changed}))
    for file in ("damaged.zip", "changed.zip"):
        classifier = _reads(lambda file=file: format.load_exported(place / file))
        assert classifier is None or (len(classifier.label_names), classifier.image_shape) == (2, (2, 2, 1))


@fuzzed(60)
@given(st.dictionaries(st.sampled_from(["suite", "facts", "results", "facts_of"]), _JSON, max_size=4), _damages())
@example({"results": {"1": {"accuracy": 10**400}}}, lambda content: content)
@example({"results": {"1": {"accuracy": float("inf")}}}, lambda content: content)
@example({}, lambda content: b"[" * 100_000)
def test_damaged_results_of_an_evaluation(place, changes, damage):
    folder = place / "eval"
    folder.mkdir(exist_ok=True)
    content = {"suite": "clean", "facts": {"step": 1}, "results": {"1": {"accuracy": 0.5}}, "facts_of": {"1": {}}}
    for text in (json.dumps(content | changes).encode(), damage(json.dumps(content).encode())):
        (folder / "clean.json").write_bytes(text)
        suites = _reads(lambda: results_lib.read(folder))
        assert suites is None or all(
            np.isfinite(list(of_num.metrics.values())).all()
            for suite in suites.values()
            for of_num in suite.results.values()
        )


_OF_RECORD = ["config", "label_names", "image_shape", "data", "references"]


@fuzzed(60)
@given(st.dictionaries(st.sampled_from(_OF_RECORD), _JSON, max_size=2), _damages())
@example({"label_names": ["a"]}, lambda content: content)
@example({"label_names": "ab", "image_shape": [1, 2]}, lambda content: content)
@example({"config": {"optimizer": {"learning_rate": 10**400}}}, lambda content: content)
@example({"references": {"rows": [[]], "sha256": 1}}, lambda content: content)
@example({}, lambda content: b"[" * 100_000)
def test_damaged_records_of_runs(place, changes, damage):
    config = configuration.base()
    images = np.zeros((3, 4, 4, 1), np.uint8)
    fresh = run_record.Run(place / "run", config, ("a", "b"), (4, 4, 1), "3 examples", np.arange(3), images)
    shutil.rmtree(place / "run", ignore_errors=True)
    with run_record.lock_workdir(fresh):
        content = (place / "run/run.json").read_bytes()
    for text in (json.dumps(json.loads(content) | changes).encode(), damage(content)):
        (place / "run/run.json").write_bytes(text)
        loaded = _reads(lambda: run_record.load(place / "run"))
        assert loaded is None or len(loaded.image_shape) == 3


@fuzzed(40)
@given(_damages())
def test_damaged_arrays_of_an_evaluation(place, damage):
    folder = place / "arrays"
    shutil.rmtree(folder, ignore_errors=True)
    results_lib.write(folder, "clean", {}, {1: results_lib.Found({"accuracy": 0.5}, {"correct": np.zeros(3)})})
    file = folder / "clean-references1.npz"
    file.write_bytes(damage(file.read_bytes()))
    _reads(lambda: dict(results_lib.read(folder)["clean"].results[1].arrays))
