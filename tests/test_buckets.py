"""Runs, results, exports and data in buckets, on emulators of S3 and Google Cloud Storage."""

import asyncio
import json
import os
import re
import shutil
from pathlib import Path

import emulators
import numpy as np
import pytest
from conftest import StopAfterSave, assert_same_bits, records, stop_after_saves, tiny_config
from PIL import Image

import anchor_jax as aj
from anchor_jax.cli import app
from anchor_jax.core.errors import CorruptDataWarning
from anchor_jax.data.local_copies import local_data, local_tfds
from anchor_jax.evaluation import evaluate, load_results, prediction_files
from anchor_jax.export.write import export
from anchor_jax.reporting import Reporter
from anchor_jax.runs import published
from anchor_jax.runs import record as run_record
from anchor_jax.runtime import leases, multihost, object_storage
from anchor_jax.runtime.atomic_files import atomic_write, exclusive_lock, keep_earlier
from anchor_jax.runtime.paths import storage_path
from anchor_jax.training.loop import train

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", params=["s3", "gs"])
def bucket(request):
    """The address of an empty bucket."""
    with emulators.running(request.param) as address:
        yield address


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of this machine and its data, and its last state."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(tiny_config(folder), folder / "run")


@pytest.fixture(scope="module")
def resumed(bucket, finished):
    """The address of the same run in a bucket, which died after its second checkpoint and resumed; its last state."""
    address, config = f"{bucket}/runs/tiny", tiny_config(finished[0])
    with pytest.MonkeyPatch.context() as patch:
        stop_after_saves(patch, 2)
        with pytest.raises(StopAfterSave):
            train(config, address)
    return address, train(config, address)


def names_below(address):
    path = object_storage.path_of(address)
    return {name.partition("/")[2] for name in object_storage.file_system(path).find(str(path))}


def test_run_in_a_bucket_resumes_exactly(resumed, finished):
    workdir = storage_path("workdir", resumed[0])
    assert_same_bits(resumed[1], finished[1])
    assert records(workdir) == records(finished[0] / "run")
    assert {each.name for each in (workdir / "checkpoints").iterdir()} == {"3", "6", "9", "12"}
    assert_same_bits(aj.load_predictor(resumed[0]).variables, aj.load_predictor(finished[0] / "run").variables)


@pytest.fixture(scope="module")
def local_results(finished):
    """The scores of the run of this machine, the contents of its files with results by name, and its export."""
    workdir, file = finished[0] / "run", finished[0] / "tiny.zip"
    evaluate(workdir, ("clean",), (2,), report=Reporter())
    export(workdir, file, num_references=2)
    files = {str(each.relative_to(workdir)): each.read_bytes() for each in (workdir / "eval").rglob("*.*")}
    return load_results(workdir), files, file.read_bytes()


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)  # the same code for both
def test_run_in_a_bucket_is_evaluated_and_exported(resumed, local_results, bucket):
    scores, files, exported = local_results
    evaluate(resumed[0], ("clean",), (2,), report=Reporter(["tensorboard"]))
    of_time = scores["metric"] == "seconds_per_1000"
    np.testing.assert_array_equal(load_results(resumed[0])["value"][~of_time], scores["value"][~of_time])
    found = {name.removeprefix("runs/tiny/") for name in names_below(f"{resumed[0]}/eval")}
    events, others = re.compile("eval/tensorboard/events.*"), {name for name in found if "/lock/" not in name}
    assert {name for name in others if not events.fullmatch(name)} == files.keys() < others
    predictions = storage_path("workdir", resumed[0]) / "eval/predictions.csv"
    assert predictions.read_bytes() == files["eval/predictions.csv"]
    export(resumed[0], f"{bucket}/tiny.zip", num_references=2)
    assert object_storage.path_of(f"{bucket}/tiny.zip").read_bytes() == exported
    assert aj.load_exported(f"{bucket}/tiny.zip").label_names == ("0", "1", "2")


def test_predictions_in_a_bucket_are_written_without_copies(bucket, tmp_path):
    folder = storage_path("folder", f"{bucket}/limited/step12-bins15-limit5")  # the folder of its summaries, too
    part = prediction_files.part_file(tmp_path, "clean", 2)
    recorder = prediction_files.Recorder()
    with recorder.part(part, 12, 2, ("0", "1")):
        pass
    upload(tmp_path, str(folder))
    prediction_files.write_all(folder, [folder / part.name], folder)
    assert names_below(folder) == {f"limited/{folder.name}/{name}" for name in (*prediction_files.NAMES, part.name)}


def test_published_run_in_a_bucket_is_loaded(bucket, finished, tmp_path):
    predictor = aj.load_predictor(finished[0] / "run")
    published.write(tmp_path, run_record.load(finished[0] / "run"), 12, predictor.variables)
    upload(tmp_path, f"{bucket}/published")
    assert_same_bits(aj.load_predictor(f"{bucket}/published").variables, predictor.variables)


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)  # the same code for both
def test_run_in_a_bucket_resumes_before_a_corrupt_checkpoint(resumed, finished):
    workdir = storage_path("workdir", resumed[0])
    (workdir / "checkpoints/9/record/metadata").write_text("{")
    (workdir / "checkpoints/12/commit_success.txt").unlink()  # as if it were killed just before it was complete
    with pytest.warns(CorruptDataWarning, match="steps 7 to 9 are repeated"):
        assert_same_bits(train(tiny_config(finished[0]), resumed[0]), finished[1])
    assert (workdir / "damaged/9/record/metadata").exists()
    assert {each.name for each in (workdir / "checkpoints").iterdir()} == {"3", "6", "9", "12"}


def test_failed_write_keeps_the_previous_object(bucket):
    file = storage_path("file", f"{bucket}/objects/a.json")
    for text in ("earlier", "later"):
        with atomic_write(file) as new:
            new.write_text(text)

    def write_half():
        with atomic_write(file) as new:
            new.write_text("half")
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_half()
    assert file.read_text() == "later"
    keep_earlier(file.parent, [file])
    assert names_below(file.parent) == {"objects/earlier/1/a.json"}


def hold_as(folder, **changes):
    """Write the lock of another process, whose content differs by `changes`."""
    other = {"owner": "other", "host": "h", "machine": "m", "process": "1 1", "beat": 0, "released": False}
    (folder / "lock/000001").write_text(json.dumps(other | changes))


@pytest.mark.parametrize("of_this_machine", [True, False])
def test_lock_of_a_dead_process_is_taken_over(bucket, monkeypatch, of_this_machine):
    monkeypatch.setattr(multihost, "_PATIENCE_SECONDS", 1)
    folder = storage_path("folder", f"{bucket}/dead-{of_this_machine}")
    hold_as(folder, process="999999999 1", machine=leases._machine() if of_this_machine else "other")
    with exclusive_lock(folder):
        assert {name[-6:] for name in names_below(folder)} == {"000002"}


def test_lock_of_a_living_process_is_refused(bucket, monkeypatch):
    monkeypatch.setattr(multihost, "_PATIENCE_SECONDS", 1)
    folder = storage_path("folder", f"{bucket}/living")
    with (
        exclusive_lock(folder),
        pytest.raises(aj.UserError, match="another process is writing"),
        exclusive_lock(folder),
    ):
        pass
    with exclusive_lock(folder):  # after it was released
        pass


def test_lock_is_read_again_if_a_heartbeat_interferes(bucket, monkeypatch):
    place = storage_path("folder", f"{bucket}/beating") / "lock/000001"
    place.write_text('{"beat": 1}')
    beats = iter(['{"beat": 22}'])

    def read_slowly(path):
        with path.open("rb") as file:
            for content in beats:
                path.write_text(content)
            return file.read()

    monkeypatch.setattr(type(place), "read_bytes", read_slowly)
    content = leases._Lease(place.parents[1])._read(1)
    assert content == ({"beat": 22} if bucket.startswith("s3:") else {})  # gs cuts it off at the size of before


def test_lock_is_taken_by_a_repeated_request(bucket, monkeypatch):
    monkeypatch.setattr(multihost, "_PATIENCE_SECONDS", 1)
    create = object_storage.create
    monkeypatch.setattr(object_storage, "create", lambda *of: [create(*of), create(*of)][-1])  # the answer was lost
    with exclusive_lock(storage_path("folder", f"{bucket}/repeated")):
        assert {name[-6:] for name in names_below(f"{bucket}/repeated")} == {"000001"}


def test_lost_lock_stops_the_writer(bucket):
    folder, is_lost = storage_path("folder", f"{bucket}/lost"), "another process has taken over"

    def write_and_lose():
        with atomic_write(folder / "b.json") as file:
            file.write_text("{}")
            (folder / "lock/000002").write_text("{}")

    with exclusive_lock(folder):
        (folder / "a.json").write_text("{}")
        with pytest.raises(aj.UserError, match=is_lost):
            write_and_lose()
        with pytest.raises(aj.UserError, match=is_lost):
            keep_earlier(folder, [folder / "a.json"])
    assert names_below(folder) == {"lost/a.json", "lost/lock/000001", "lost/lock/000002"}


def write_images(folder):
    for split in ("train", "test"):
        for row in range(4):
            (folder / split / "ab"[row % 2]).mkdir(parents=True, exist_ok=True)
            Image.new("L", (6, 6), 50 * row).save(folder / split / "ab"[row % 2] / f"{row}.png")


def upload(folder, address):
    path = object_storage.path_of(address)
    for file in filter(Path.is_file, folder.rglob("*")):
        object_storage.upload(file, path / str(file.relative_to(folder)))


@pytest.mark.parametrize("source", ["npz", "folder"])
def test_data_in_a_bucket_are_those_of_this_machine(bucket, tmp_path, source, capsys):
    (tmp_path / "data").mkdir()
    tiny_config(tmp_path / "data")
    write_images(tmp_path / "data/pictures")
    upload(tmp_path / "data", f"{bucket}/data-{source}")
    place = {"npz": "tiny.npz", "folder": "pictures"}[source]
    local = aj.data.load(source, "train", path=str(tmp_path / "data" / place))
    for _ in range(2):
        remote = aj.data.load(source, "train", path=f"{bucket}/data-{source}/{place}")
        np.testing.assert_array_equal(remote.images, local.images)
        np.testing.assert_array_equal(remote.labels, local.labels)
    assert capsys.readouterr().out.count("copying") == 1  # and not again
    spec = f"{source}:{bucket}/data-{source}/{place}@test"
    assert aj.data.open_dataset(spec, image_shape=(6, 6, 1)).num_examples == (40 if source == "npz" else 4)


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)  # the same code for both
def test_data_are_copied_into_any_cache(bucket, tmp_path, monkeypatch):
    for version in ("1.0.0", "1.10.0", "1.9.0", "2.0.0"):
        (tmp_path / "data" / version).mkdir(parents=True)
        (tmp_path / "data" / version / "a.txt").write_text(version)
    upload(tmp_path, f"{bucket}/versions")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANCHOR_JAX_CACHE", "other/../cache")
    copied = local_data("data.path", f"{bucket}/versions/data")
    assert copied.is_absolute()
    assert {file.relative_to(copied).as_posix() for file in copied.glob("*/a.txt")} >= {"1.0.0/a.txt", "2.0.0/a.txt"}
    prepared = local_tfds(storage_path("data.path", f"{bucket}/versions"), "data:1.*.*")
    assert [file.read_text() for file in prepared.rglob("a.txt")] == ["1.10.0"]
    monkeypatch.setenv("ANCHOR_JAX_CACHE", "data/1.0.0/a.txt")
    with pytest.raises(aj.UserError, match=f"cannot copy '{bucket}/versions/data' to .*; set ANCHOR_JAX_CACHE"):
        local_data("data.path", f"{bucket}/versions/data")


def test_prepared_dataset_in_a_bucket_is_read(bucket, tmp_path):
    data_dir = os.environ.get("TFDS_DATA_DIR", "")
    versions = sorted(Path(data_dir, "cifar10").glob("*/features.json")) if data_dir else []
    if not versions:
        pytest.skip("needs a prepared cifar10 in TFDS_DATA_DIR")
    shutil.copytree(versions[-1].parent, tmp_path / "cifar10" / versions[-1].parent.name)
    upload(tmp_path, f"{bucket}/tfds")
    local, remote = (
        aj.data.load("tfds", "test[:20]", name="cifar10", path=path) for path in (str(tmp_path), f"{bucket}/tfds")
    )
    np.testing.assert_array_equal(remote.images, local.images)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere/run", "there is no bucket '{scheme}nowhere'"),
        ("", "expected {scheme}BUCKET"),
        ("b/../x", "without '.'"),
    ],
)
def test_bucket_that_cannot_be_used_is_one_line(bucket, place, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scheme = bucket.removesuffix("bucket")
    with pytest.raises(aj.UserError, match=message.format(scheme=scheme)) as error:
        train(tiny_config(tmp_path), f"{scheme}{place}")
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.npz"]


def refuse():
    raise pytest.importorskip("aiohttp").ClientOSError(111, "Connection refused")


def fail_at_object():
    raise OSError(5, "Connection refused", "gs://bucket/run/run.json")


def forbid_in_gs():
    pytest.importorskip("gcsfs.retry").validate_response(403, b"no access", "bucket/run")


def forbid_in_s3():
    error = pytest.importorskip("botocore.exceptions").ClientError({"Error": {"Code": "403", "Message": "no"}}, "get")

    async def get():
        raise error

    asyncio.run(pytest.importorskip("s3fs.core")._error_wrapper(get, retries=1))


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        (refuse, "Connection refused"),
        (fail_at_object, "refused: 'gs://bucket/run/run.json'"),
        (forbid_in_gs, "Forbidden: bucket/run no access"),
        (forbid_in_s3, "no"),
    ],
)
def test_failing_bucket_is_one_line_of_every_command(fail, reason, monkeypatch, capsys):
    monkeypatch.setattr(app.app, "run", lambda main, flags_parser: main(["eval.py"]))
    monkeypatch.setattr(app, "enable_compilation_cache", lambda: None)
    monkeypatch.setattr(app.sys, "unraisablehook", app.sys.unraisablehook)
    monkeypatch.setattr(app.warnings, "showwarning", app.warnings.showwarning)
    with pytest.raises(SystemExit) as ended:
        app.run(fail)
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{reason}; check the bucket, the network and the credentials" in line
