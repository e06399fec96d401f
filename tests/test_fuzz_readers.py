"""Fuzz the readers and the config: input loads, or raises a one-line `UserError`.

The examples are the same in every run; `ANCHOR_JAX_FUZZ=10000` tries 10,000 random ones.
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
from conftest import write_results
from corrupt_files import image, npz, prepared_set, zipped
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from anchor_jax import config as configuration
from anchor_jax.core.errors import UserError
from anchor_jax.data import load
from anchor_jax.data.decoding import Example, decode
from anchor_jax.evaluation import storage
from anchor_jax.export import format
from anchor_jax.models.pytorch.files import read_state_dict
from anchor_jax.runs import record as run_record

_MORE = int(os.environ.get("ANCHOR_JAX_FUZZ", "0"))


def fuzzed(num_examples: int):
    """Return settings for a number of fixed examples, or for `ANCHOR_JAX_FUZZ` random ones."""
    return settings(
        max_examples=_MORE or num_examples,
        derandomize=not _MORE,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


def _succeeds(action) -> bool:
    """Return whether an action succeeds; if not, check that its error is one line."""
    try:
        action()
    except UserError as error:
        message = str(error)
    else:
        return True
    assert len(message.splitlines()) == 1
    return False


# the config

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
    """Return a config with other values, of any type."""
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
def test_fuzz_config_is_rejected_or_survives_json(values):
    given_config = _with_values(values)
    if not _succeeds(lambda: configuration.validate(given_config)):
        return
    given_config = configuration.with_plain_values(given_config)

    def restored(value):
        if isinstance(value, dict):
            return {key: restored(inner) for key, inner in value.items()}
        return tuple(map(restored, value)) if isinstance(value, list) else value

    read = configuration.base()
    read.update(restored(json.loads(json.dumps(given_config.to_dict(), allow_nan=False))))
    assert configuration.flatten(read) == configuration.flatten(given_config)


# files


@st.composite
def _corruptions(draw):
    """Draw a function that corrupts the bytes of a file: it flips some, and cuts out or inserts others."""
    flips = draw(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=4))
    start, end = draw(st.floats(0, 1)), draw(st.floats(0, 1))
    inserted = draw(st.one_of(st.just(b""), st.binary(max_size=8)))

    def corrupt(content: bytes) -> bytes:
        corrupted = bytearray(content)
        for place, mask in flips:
            corrupted[int(place * len(corrupted))] ^= mask
        low, high = sorted((int(start * len(corrupted)), int(end * len(corrupted))))
        is_mostly_cut = not inserted and high - low > len(corrupted) // 2
        kept = corrupted if is_mostly_cut else corrupted[:low] + inserted + corrupted[high:]
        return bytes(kept)

    return corrupt


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module", autouse=True)
def no_cache(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANCHOR_JAX_CACHE", str(place / "cache"))
        yield


def _read_or_none(read):
    """Return what is read, or None if that raises a one-line error."""
    results = []
    return results[0] if _succeeds(lambda: results.append(read())) else None


@fuzzed(100)
@given(st.sampled_from(["png", "jpeg", "bmp", "gif", "tiff", "webp", "ppm"]), _corruptions())
def test_fuzz_images(kind, corrupt):
    content = corrupt(image(kind, 12))
    for size in (0, 4):
        pixels = _read_or_none(lambda size=size: decode(Example(content, 0, "x"), mode="RGB", image_size=size))
        assert pixels is None or (pixels.dtype == np.uint8 and pixels.shape[2:] == (3,))


@fuzzed(60)
@given(_corruptions())
def test_fuzz_npz(place, corrupt):
    arrays = {"x_train": np.zeros((4, 3, 2), np.uint8), "y_train": np.array([0, 1, 0, 1]), "label_names": ["a", "b"]}
    (place / "data.npz").write_bytes(corrupt(npz(**arrays)))
    dataset = _read_or_none(lambda: load("npz", "train", path=place / "data.npz"))
    assert dataset is None or len(dataset.images) == len(dataset.labels)


@pytest.fixture(scope="module")
def prepared(place):
    folder = prepared_set(place / "tfds")
    return folder, {file: file.read_bytes() for file in folder.iterdir()}


@fuzzed(60)
@given(
    st.sampled_from(["features.json", "dataset_info.json", "tiny-train.array_record-00000-of-00001"]), _corruptions()
)
def test_fuzz_tfds(prepared, name, corrupt):
    folder, files = prepared
    (folder / name).write_bytes(corrupt(files[folder / name]))
    try:
        dataset = _read_or_none(lambda: load("tfds", "train", name="tiny", path=folder.parents[1]))
        assert dataset is None or len(dataset.images) == len(dataset.labels)
    finally:
        (folder / name).write_bytes(files[folder / name])


@fuzzed(60)
@given(_corruptions())
def test_fuzz_safetensors(place, corrupt):
    file = place / "w.safetensors"
    file.write_bytes(corrupt(safetensors.numpy.save({"a": np.ones((2, 3), np.float32), "b": np.zeros(2, np.int64)})))
    tensors = _read_or_none(lambda: read_state_dict(file))
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
    _corruptions(),
)
@example(format.PROGRAM, {}, lambda content: content)
def test_fuzz_exported_runs(place, exported_run, name, changes, corrupt):
    (place / "corrupt.zip").write_bytes(zipped(exported_run | {name: corrupt(exported_run[name])}))
    changed = json.dumps(json.loads(exported_run[format.METADATA]) | changes).encode()
    (place / "changed.zip").write_bytes(zipped(exported_run | {format.METADATA: changed}))
    for file in ("corrupt.zip", "changed.zip"):
        classifier = _read_or_none(lambda file=file: format.load_exported(place / file))
        assert classifier is None or (len(classifier.label_names), classifier.image_shape) == (2, (2, 2, 1))


@fuzzed(60)
@given(st.dictionaries(st.sampled_from(["suite", "facts", "results", "facts_of"]), _JSON, max_size=4), _corruptions())
@example({"results": {"1": {"accuracy": 10**400}}}, lambda content: content)
@example({"results": {"1": {"accuracy": float("inf")}}}, lambda content: content)
@example({}, lambda content: b"[" * 100_000)
def test_fuzz_evaluation_results(place, changes, corrupt):
    folder = place / "eval"
    folder.mkdir(exist_ok=True)
    content = {"suite": "clean", "facts": {"step": 1}, "results": {"1": {"accuracy": 0.5}}, "facts_of": {"1": {}}}
    for text in (json.dumps(content | changes).encode(), corrupt(json.dumps(content).encode())):
        (folder / "clean.json").write_bytes(text)
        suites = _read_or_none(lambda: storage.read(folder))
        assert suites is None or all(
            np.isfinite(list(of_num.metrics.values())).all() for suite in suites.values() for of_num in suite.values()
        )


_OF_RECORD = ["config", "label_names", "image_shape", "data", "references"]


@fuzzed(60)
@given(st.dictionaries(st.sampled_from(_OF_RECORD), _JSON, max_size=2), _corruptions())
@example({"label_names": ["a"]}, lambda content: content)
@example({"label_names": "ab", "image_shape": [1, 2]}, lambda content: content)
@example({"config": {"optimizer": {"learning_rate": 10**400}}}, lambda content: content)
@example({"references": {"rows": [[]], "sha256": 1}}, lambda content: content)
@example({}, lambda content: b"[" * 100_000)
def test_fuzz_run_records(place, changes, corrupt):
    config = configuration.base()
    images = np.zeros((3, 4, 4, 1), np.uint8)
    fresh = run_record.Run(place / "run", config, ("a", "b"), (4, 4, 1), "3 examples", np.arange(3), images)
    shutil.rmtree(place / "run", ignore_errors=True)
    with run_record.lock_workdir(fresh):
        content = (place / "run/run.json").read_bytes()
    for text in (json.dumps(json.loads(content) | changes).encode(), corrupt(content)):
        (place / "run/run.json").write_bytes(text)
        loaded = _read_or_none(lambda: run_record.load(place / "run"))
        assert loaded is None or len(loaded.image_shape) == 3


@fuzzed(40)
@given(_corruptions())
def test_fuzz_evaluation_arrays(place, corrupt):
    folder = place / "arrays"
    shutil.rmtree(folder, ignore_errors=True)
    write_results(folder, "clean", {}, {1: ({"accuracy": 0.5}, {"correct": np.zeros(3)})})
    file = folder / "clean-references1.npz"
    file.write_bytes(corrupt(file.read_bytes()))
    _read_or_none(lambda: dict(storage.read(folder)["clean"][1].arrays))
