"""Tests of `train.py`, `eval.py` and the messages and exit statuses of all commands."""

import json
import shutil

import pytest
from commands import assert_error, command, quick_command

TRAIN = ("train.py", "--config", "configs/digits.py")


def mlp_config(folder, **changes):
    """Write the config of a run that takes a second, and return the file."""
    file = folder / "config.py"
    lines = "\n".join(f"    config.{key} = {value!r}" for key, value in changes.items())
    file.write_text(
        "from anchor_jax.config import base\n\n\ndef get_config():\n    config = base()\n"
        '    config.model.name = "mlp"\n    config.training.total_epochs = 2.0\n'
        f'    config.optimizer.name = "adamw"\n    config.optimizer.learning_rate = 3e-3\n{lines}\n    return config\n'
    )
    return file


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a finished run, its config file, and how the command ended."""
    folder = tmp_path_factory.mktemp("finished")
    config = mlp_config(folder)
    done = command("train.py", "--config", config, "--workdir", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder, config, done


def test_train_prints_devices_model_and_epochs(finished):
    _, _, done = finished
    for text in ("devices   1 x cpu", "anchored training, 1,437 references", "parameters, computed in float32"):
        assert text in done.stdout
    assert "step 11/22: train loss" in done.stdout
    assert "images/s" in done.stdout
    assert "step 22/22: test loss" not in done.stdout
    assert "step 22/22: test accuracy" in done.stdout
    assert done.stderr == ""


def test_evaluate_needs_only_the_workdir(finished):
    folder, _, _ = finished
    done = quick_command("eval.py", "--workdir", folder / "run", "--num_references", "1,10")
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("progress: ") for line in done.stderr.splitlines())  # on a slow machine
    numbers = json.loads((folder / "run/eval/metrics.json").read_text())
    assert numbers["clean"].keys() == {"1", "10"}
    assert 0 <= numbers["clean"]["10"]["accuracy"] <= 1
    assert len(list((folder / "run/eval").glob("step*-bins15/report.html"))) == 1


def test_train_leaves_a_finished_run_as_it_is(finished):
    folder, config, _ = finished
    before = (folder / "run/metrics.jsonl").read_bytes()
    done = quick_command("train.py", "--config", config, "--workdir", folder / "run")
    assert done.returncode == 0
    assert "resumes from step 22" in done.stdout
    assert (folder / "run/metrics.jsonl").read_bytes() == before


INVALID_COMMAND_LINES = {
    "unknown flag": ((*TRAIN, "--wrkdir=x"), "Unknown command line flag 'wrkdir'. Did you mean: workdir ?"),
    "no workdir": (TRAIN, "--workdir must have a value"),
    "no config": (("train.py", "--workdir=x"), "--config must have a value"),
    "unknown key": (
        (*TRAIN, "--workdir=x", "--config.anchoring.mask_pro=0.2"),
        "unknown config key 'anchoring.mask_pro'; did you mean 'anchoring.mask_prob' (default 0.25)?",
    ),
    "no number": ((*TRAIN, "--workdir=x", "--config.anchoring.mask_prob=abc"), "could not convert string to float"),
    "stray argument": (("eval.py", "--workdir=x", "clean"), "unexpected argument 'clean'; write flags as --name=value"),
    "no integer": (("eval.py", "--workdir=x", "--num_references=ten"), "--num_references takes integers; got 'ten'"),
    "unknown command": (("-m", "anchor_jax", "trian"), "unknown command 'trian'; allowed: compare, evaluate, export, "),
}

USER_ERRORS = {
    "no config file": (("train.py", "--config=configs/nothing.py", "--workdir=x"), "configs/nothing.py"),
    "unknown config": (
        ("train.py", "--config=cifar11", "--workdir=x"),
        "unknown config 'cifar11'; allowed: cifar10, cifar100, ",
    ),
    "mask_prob": ((*TRAIN, "--workdir=x", "--config.anchoring.mask_prob=1.5"), "mask_prob must be in [0, 1]; got 1.5"),
    "choice": (
        (*TRAIN, "--workdir=x", "--config.anchoring.mask_per=epoch"),
        "mask_per must be one of batch, group, example; got 'epoch'",
    ),
    "source": ((*TRAIN, "--workdir=x", "--config.data.source=digit"), "Did you mean 'digits'?"),
    "dataset": (
        (*TRAIN, "--workdir=x", "--config.data.source=tfds", "--config.data.name=cifar11"),
        "unknown TFDS dataset 'cifar11'; nearest names: cifar10",
    ),
    "not prepared": (
        (*TRAIN, "--workdir=x", "--config.data.source=tfds", "--config.data.name=mnist", "--config.data.path=nowhere"),
        "download_and_prepare()",
    ),
    "model": ((*TRAIN, "--workdir=x", "--config.model.name=resnet51"), "unknown model 'resnet51'"),
    "option": (
        (*TRAIN, "--workdir=x", "--config.model.name=mlp"),
        "unknown option of model 'mlp' 'width'; allowed: hidden",
    ),
    "bank": ((*TRAIN, "--workdir=x", "--config.anchoring.bank_size=2000"), "bank_size=2000; allowed: 0 (all) to 1437"),
    "batch": ((*TRAIN, "--workdir=x", "--config.training.batch_size=0"), "batch_size must be at least 1; got 0"),
    "K": ((*TRAIN, "--workdir=x", "--config.evaluation.num_references=0"), "num_references must be at least 1; got 0"),
    "no run": (("eval.py", "--workdir=nowhere"), "no run in 'nowhere'"),
}


@pytest.mark.parametrize("case", INVALID_COMMAND_LINES)
def test_invalid_command_line_exits_with_status_2(case):
    arguments, message = INVALID_COMMAND_LINES[case]
    assert_error(quick_command(*arguments), 2, message)


@pytest.mark.parametrize("case", USER_ERRORS)
def test_user_error_exits_with_status_1(case, tmp_path):
    arguments, message = USER_ERRORS[case]
    arguments = [f"--workdir={tmp_path / 'x'}" if argument == "--workdir=x" else argument for argument in arguments]
    assert_error(quick_command(*arguments), 1, message)
    assert not list(tmp_path.rglob("*.npz"))


def test_train_suggests_the_key_misspelled_in_a_config(tmp_path):
    config = mlp_config(tmp_path, **{"anchoring.mask_pro": 0.1})
    done = quick_command("train.py", "--config", config, "--workdir", tmp_path / "run")
    assert_error(done, 1, 'Did you mean "mask_prob" instead of "mask_pro"?')


def test_train_rejects_the_workdir_of_another_run(finished):
    folder, config, _ = finished
    before = {file: file.read_bytes() for file in (folder / "run").rglob("*.json*")}
    done = quick_command("train.py", "--config", config, "--workdir", folder / "run", "--config.seed=1")
    assert_error(done, 1, "holds another run: its config.seed is 0; got 1")
    assert before == {file: file.read_bytes() for file in before}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--suites=clean,corruption", "unknown suite 'corruption'; allowed: clean, conformal, corruptions,"),
        ("--num_references=0", "num_references must lie in 1..100"),
        ("--checkpoint=7", "no checkpoint 7 in"),
    ],
)
def test_evaluate_rejects_what_the_run_does_not_have(finished, flag, message):
    assert_error(quick_command("eval.py", "--workdir", finished[0] / "run", flag), 1, message)


def test_train_reports_a_diverging_loss(tmp_path):
    config = mlp_config(tmp_path, **{"optimizer.learning_rate": 1e30})
    done = quick_command("train.py", "--config", config, "--workdir", tmp_path / "run")
    assert_error(done, 1, "lower config.optimizer.learning_rate")


def test_train_names_an_unreadable_image(tmp_path):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            (tmp_path / "images" / split / name / "0.png").write_bytes(b"no image")
    config = mlp_config(tmp_path, **{"data.source": "folder", "data.path": str(tmp_path / "images")})
    done = quick_command("train.py", "--config", config, "--workdir", tmp_path / "run")
    assert_error(done, 1, "cat/0.png")


def test_evaluate_rejects_a_corrupt_checkpoint(finished, tmp_path):
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    for file in (tmp_path / "run/checkpoints/22/variables").rglob("manifest.ocdbt"):
        file.write_bytes(b"")
    assert_error(quick_command("eval.py", "--workdir", tmp_path / "run"), 1, "checkpoints/22' is corrupt")


def test_train_reports_an_unwritable_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    done = quick_command(*TRAIN, "--workdir", tmp_path / "file/run")
    assert_error(done, 1, "cannot write to")


def test_package_import_is_light():
    program = "import sys, anchor_jax; print([m for m in ('flax', 'orbax', 'optax', 'sklearn') if m in sys.modules])"
    assert command("-c", program).stdout.strip() == "[]"


def test_train_is_reproducible_from_its_seed(finished, tmp_path):
    folder, config, _ = finished
    assert quick_command("train.py", "--config", config, "--workdir", tmp_path / "again").returncode == 0
    one, other = ((run / "references.npz").read_bytes() for run in (folder / "run", tmp_path / "again"))
    assert one == other
    one, other = (
        [json.loads(line).get("train/loss") for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (folder / "run", tmp_path / "again")
    )
    assert one == other
