"""Wrong input to the four commands: one line says what was given and how to mend it; what was there stays as it was."""

import contextlib
import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from commands import assert_told, quick_command
from conftest import tiny_config
from corrupt_files import (
    HUGE,
    POSTSCRIPT,
    Mark,
    image,
    image_folder,
    left_a_mark,
    npy,
    npy_array,
    npy_of,
    npz,
    pickled,
    png_of,
    prepared_set,
    zipped,
)

from anchor_jax.evaluation import results as results_lib
from anchor_jax.training.loop import train

X, Y = np.arange(24, dtype=np.uint8).reshape(4, 3, 2), np.array([0, 1, 0, 1])


def contents(folder):
    """What every file and link of a folder is."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path] = os.readlink(path)
        elif path.is_file():
            found[path] = path.read_bytes()
    return found


@contextlib.contextmanager
def unchanged(place):
    """Nothing in a folder is changed, added or removed, and no code in its files has run."""
    before = contents(place)
    yield
    assert contents(place) == before
    assert not left_a_mark(place)


def training(place, *flags, config="configs/digits.py"):
    return quick_command("train.py", f"--config={config}", f"--workdir={place / 'run'}", *flags)


# --- flags ----------------------------------------------------------------------------------------------

WRONG_COMMAND_LINES = {
    "a group of keys": (["--config.training=5"], "'training' is a group of keys; give one of them, such as 'training."),
    "no key": (["--config.=3"], "unknown config key ''; did you mean"),
    "a key of no option": (["--config.model.options.a.b=3"], "unknown config key 'model.options.a.b'; did you mean"),
    "a key of nothing": (["--config.data..name=x"], "unknown config key 'data..name'; did you mean 'data.name'"),
    "a number is empty": (["--config.seed="], "--config.seed=: invalid literal for int()"),
    "a number is a float": (["--config.seed=1.5"], "--config.seed=1.5: invalid literal for int()"),
    "a number is huge and a float": (["--config.seed=1e400"], "--config.seed=1e400: invalid literal for int()"),
    "a number is a bool": (["--config.training.batch_size=True"], "batch_size=True: invalid literal for int()"),
    "a number is a tuple": (["--config.anchoring.mask_prob=(0.1,)"], "could not convert string to float: '(0.1,)'"),
    "a number is left out": (["--config.anchoring.mask_prob"], "Missing value for flag --config.anchoring.mask_prob"),
    "a bool is none": (["--config.anchoring.enabled=maybe"], "Non-boolean argument to boolean flag"),
    "a tuple is half": (["--config.data.std=(0.5,"], "Error while parsing string: (0.5, as tuple"),
    "the second of two is wrong": (["--config.seed=1", "--config.seed=two"], "--config.seed=two: invalid literal"),
    "a flag is no bool": (["--profile=maybe"], "--profile=maybe: ('Non-boolean argument to boolean flag'"),
    "a flag file is missing": (["--flagfile=/nowhere"], "Unable to open flagfile: [Errno 2] No such file"),
    "a flag is empty": (["--workdir="], "--workdir takes the path of a folder; got ''"),
    "a flag of processes": (["--num_processes=0"], "--num_processes=0: 0 is not a positive integer"),
    "part of the processes": (["--process_id=0"], "--coordinator, --num_processes and --process_id go together"),
    "a process of none": (
        ["--coordinator=a:1", "--num_processes=2", "--process_id=2"],
        "--process_id must lie in 0..1, below num_processes; got 2",
    ),
}


@pytest.mark.parametrize("case", WRONG_COMMAND_LINES)
def test_wrong_command_line(case, tmp_path):
    flags, message = WRONG_COMMAND_LINES[case]
    with unchanged(tmp_path):
        assert_told(training(tmp_path, *flags), 2, message)


WRONG_VALUES = {
    "--config.anchoring.mask_prob=nan": "anchoring.mask_prob must be in [0, 1]; got nan",
    "--config.anchoring.mask_prob=1e400": "anchoring.mask_prob must be in [0, 1]; got inf",
    "--config.optimizer.learning_rate=-0.1": "optimizer.learning_rate must be at least 0; got -0.1",
    "--config.optimizer.learning_rate=inf": "optimizer.learning_rate must be finite and within the range of float32",
    "--config.optimizer.weight_decay=1e300": "optimizer.weight_decay must be finite and within the range of float32",
    "--config.optimizer.norm_weight_decay=nan": "optimizer.norm_weight_decay must be finite",
    "--config.optimizer.warmup_epochs=1e300": "optimizer.warmup_epochs must be in [0, 1000000]; got 1e+300",
    "--config.optimizer.milestones_epochs=(-1,)": "optimizer.milestones_epochs must be in [0, 1000000]; got (-1,)",
    "--config.optimizer.milestones_epochs=('a',)": "milestones_epochs must be a tuple of numbers; got ('a',) (tuple)",
    "--config.optimizer.frozen=(1,)": "optimizer.frozen must be a tuple of strings; got (1,) (tuple)",
    "--config.seed=-1": "seed must be in [0, 4294967295]; got -1",
    "--config.training.batch_size=1000000000000000000000000000000": "batch_size must be no larger than 2147483647",
    "--config.training.total_epochs=1e30": "training.total_epochs must be in [0, 1000000]; got 1e+30",
    "--config.evaluation.num_bins=1000000000000": "evaluation.num_bins must be no larger than 2147483647",
    "--config.augmentation.num_operations=1000000": "augmentation.num_operations must be in [1, 100]; got 1000000",
    "--config.augmentation.resized_crop=('a','b')": "augmentation.resized_crop must be a tuple of numbers",
    "--config.data.workers=100000": "data.workers must be in [0, 1000]; got 100000",
    "--config.data.mean=(nan,)": "data.mean must be a tuple of numbers; got ('(nan,)',) (tuple)",
    "--config.data.mean=(1e400,)": "data.mean must be finite",
    "--config.data.mean=grey": "data.mean must be a tuple of numbers; got ('grey',) (tuple)",
    "--config.data.std=(0.1,0.2)": "data.std must have one number for each of the 1 channels",
    "--config.data.streaming=True": "data.image_size=0; a stream needs a number of pixels",
    "--config.data.test_split=../train": "unknown split of digits '../train'; allowed: test, train",
    "--config.model.options.width=0": "option 'width' of model 'resnet18' must be an integer >= 1; got 0",
    "--config.model.options.width=1000000000000": "model.options.width must be no larger than 2147483647",
    "--config.model.dtype=float8": "unknown dtype 'float8'; allowed: bfloat16, float32",
    "--config.model.weights=timm": "model.weights must be SOURCE:FILE, where SOURCE is one of torchvision, timm",
    "--config.model.weights=timm:": "model.weights must be SOURCE:FILE, where SOURCE is one of torchvision, timm",
    "--config.model.weights=keras:x.h5": "model.weights must be SOURCE:FILE, where SOURCE is one of torchvision, timm",
}


@pytest.mark.parametrize("flag", WRONG_VALUES)
def test_wrong_value_of_a_key(flag, tmp_path):
    with unchanged(tmp_path):
        assert_told(training(tmp_path, flag), 1, WRONG_VALUES[flag])


@pytest.mark.parametrize("work", ["numpy.empty(1 << 50)", "jax.numpy.zeros(1 << 40).block_until_ready()"])
def test_too_little_memory_is_told(work, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import jax\nimport numpy\nfrom anchor_jax import command\ncommand.run(lambda: {work})\n")
    assert_told(quick_command(script), 1, "take a smaller batch or model, more config.training.accumulation_steps")


# --- config files ---------------------------------------------------------------------------------------

_BASE = "from anchor_jax.config import base\n\n\ndef get_config():\n    config = base()\n"
_MEND = "; its get_config() must return base() of anchor_jax.config, with what differs"

CONFIG_FILES = {
    "syntax": ("def get_config(:\n", "(SyntaxError: invalid syntax (config.py, line 1))"),
    "empty": ("", "has no attribute 'get_config')"),
    "json": ('{"seed": 1}', "has no attribute 'get_config')"),
    "raises": ("def get_config():\n    raise ValueError('one\\ntwo')\n", "(ValueError: one two)"),
    "exits": ("import sys\n\n\ndef get_config():\n    sys.exit()\n", "(SystemExit: )"),
    "import": ("import nothing_of_that_name\n", "(ModuleNotFoundError: No module named 'nothing_of_that_name')"),
    "argument": ("def get_config(size):\n    return size\n", "(TypeError: get_config() missing 1 required positional"),
    "none": ("def get_config():\n    pass\n", "(AttributeError: 'NoneType' object has no attribute 'items')"),
    "number": ("def get_config():\n    return 3\n", "(AttributeError: 'int' object has no attribute 'items')"),
    "not utf-8": (b"x = '\xe9'\n", "(SyntaxError: (unicode error) 'utf-8' codec can't decode byte 0xe9"),
    "null byte": (b"x = 1\n\0", "null bytes"),
    "recursion": ("def get_config():\n    return get_config()\n", "(RecursionError: maximum recursion depth"),
    "holds itself": (f"{_BASE}    config.unlock()\n    config.me = config\n    return config\n", "(RecursionError: "),
    "section of a number": (f"{_BASE}    config.training = 5\n    return config\n", "(TypeError: Could not override"),
    "string for a number": (f"{_BASE}    config.seed = 'one'\n    return config\n", "(TypeError: Could not override"),
}


@pytest.mark.parametrize("case", CONFIG_FILES)
def test_config_file_that_cannot_be_loaded(case, tmp_path):
    content, message = CONFIG_FILES[case]
    (tmp_path / "config.py").write_bytes(content if isinstance(content, bytes) else content.encode())
    with unchanged(tmp_path):
        done = training(tmp_path, config=tmp_path / "config.py")
    assert_told(done, 1, message)
    assert done.stderr.startswith("error: cannot load the config file (")
    assert done.stderr.strip().endswith(_MEND)


def test_config_file_that_is_interrupted(tmp_path):
    (tmp_path / "config.py").write_text("def get_config():\n    raise KeyboardInterrupt\n")
    done = training(tmp_path, config=tmp_path / "config.py")
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_config_file_that_is_none(tmp_path):
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "loop.py").symlink_to("loop.py")
    for name, message in (
        ("folder", "Is a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("missing", "No such file or directory"),
        ("x" * 300, "File name too long"),
    ):
        assert_told(training(tmp_path, config=tmp_path / f"{name}.py"), 1, message)
    assert_told(training(tmp_path, config=""), 1, "Path to config file is an empty string")


_OF_A_DICT = "from ml_collections import ConfigDict\nfrom anchor_jax.config import base\n\n\ndef get_config():\n"

CONFIGS = {
    "a dictionary": ("    return {'seed': 1}\n", "config.anchoring.bank_per_class is missing; start the config from"),
    "nothing in it": ("    return ConfigDict()\n", "config.anchoring.bank_per_class is missing; start the config from"),
    "no section": (
        "    config = base()\n    config.unlock()\n    del config.data\n    return config\n",
        "config.data.crop_fraction is missing; start the config from anchor_jax.config.base()",
    ),
    "bool for a number": (
        "    return ConfigDict(base().to_dict() | {'seed': True})\n",
        "config.seed must be an integer; got True (bool)",
    ),
    "list for a tuple": (
        "    config = base().to_dict()\n    config['data']['mean'] = [0.5]\n    return ConfigDict(config)\n",
        "config.data.mean must be a tuple of numbers; got [0.5] (list)",
    ),
    "number for a string": (
        "    config = base().to_dict()\n    config['data']['name'] = 10**400\n    return ConfigDict(config)\n",
        "config.data.name must be a string; got 1",
    ),
    "object for an option": (
        "    config = base()\n    config.model.options.width = object()\n    return config\n",
        "config.model.options.width must be a number, a string, True, False or a tuple of these; got <object",
    ),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_config_that_is_not_what_base_gives(case, tmp_path):
    body, message = CONFIGS[case]
    (tmp_path / "config.py").write_text(_OF_A_DICT + body)
    with unchanged(tmp_path):
        assert_told(training(tmp_path, config=tmp_path / "config.py"), 1, message)


# --- data -----------------------------------------------------------------------------------------------

_FEW = ("--config.training.batch_size=2", "--config.evaluation.num_references=1")


def _good(**others):
    return {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y} | others


_MEMBERS = {f"{name}.npy": npy_array(array) for name, array in _good().items()}

NPZ = {
    "pickle for images": (lambda at: npz(**_good(x_train=np.array([Mark(at)] * 4))), "Object arrays cannot be loaded"),
    "pickle for names": (lambda at: npz(**_good(label_names=np.array([Mark(at)]))), "Object arrays cannot be loaded"),
    "pickle of another split": (lambda at: npz(**_good(y_more=np.array([Mark(at)]))), "Object arrays cannot be loaded"),
    "pickle for an array": (lambda at: zipped(_MEMBERS | {"y_train.npy": pickled(at)}), "labels of npz split 'train'"),
    "pickle for the file": (pickled, "pickled (object) data"),
    "code in a header": (lambda at: zipped(_MEMBERS | {"x_train.npy": npy("open('mark', 'w')")}), "malformed node"),
    "names that lead out": (
        lambda at: zipped({f"../../{name}": content for name, content in _MEMBERS.items()}),
        "no array 'x_train' in",
    ),
    "terabytes": (lambda at: zipped(_MEMBERS | {"x_train.npy": npy_of((HUGE, 3, 2))}), "MemoryError: Unable to alloc"),
    "more than can be counted": (lambda at: zipped(_MEMBERS | {"x_train.npy": npy_of((1 << 62, 1 << 62))}), "cannot r"),
    "wrong magic": (lambda at: b"PK\3\5" + npz(**_good())[4:], "cannot read"),
    "truncated": (lambda at: npz(**_good())[:-30], "cannot read"),
    "empty": (lambda at: b"", "cannot read"),
    "images of floats": (lambda at: npz(**_good(x_train=X / 255)), "uint8 expected, got float64"),
    "images of nan": (lambda at: npz(**_good(x_train=X * np.nan)), "uint8 expected, got float64"),
    "images of rank 2": (lambda at: npz(**_good(x_train=X[0])), "non-empty [N, H, W, C] expected, got [3, 2]"),
    "labels of floats": (lambda at: npz(**_good(y_train=Y / 1)), "integers expected, got float64"),
    "labels below 0": (lambda at: npz(**_good(y_train=Y - 1)), "labels of npz split 'train': 0 to 1 expected, got -1"),
    "one class": (lambda at: npz(**_good(y_train=Y * 0, y_test=Y * 0)), "has 1 class; at least 2 are needed"),
    "two classes of one name": (lambda at: npz(**_good(label_names=["a", "a"])), "two classes of npz split 'train' ar"),
    "a name that a terminal obeys": (lambda at: npz(**{"\x1b[31m": X}), "it holds: ?[31m"),
    "test images of another size": (lambda at: npz(**_good(x_test=X[:, :2])), "images of split 'test' are [2, 2, 1]"),
    "no test set": (lambda at: npz(x_train=X, y_train=Y), "no array 'x_test' in"),
}


@pytest.mark.parametrize("case", NPZ)
def test_wrong_npz(case, tmp_path):
    make, message = NPZ[case]
    path = tmp_path / "data.npz"
    path.write_bytes(make(tmp_path))
    with unchanged(tmp_path):
        assert_told(training(tmp_path, *_FEW, "--config.data.source=npz", f"--config.data.path={path}"), 1, message)


def _replaced(content, name="0.png"):
    """A folder of images, of which one has other bytes, or is made by a function."""

    def make(place):
        root = image_folder(place / "images")
        (root / "train/ant/0.png").unlink()
        file = root / "train/ant" / name
        if callable(content):
            content(file)
        else:
            file.write_bytes(content)
        return root

    return make


def _other_test_classes(place):
    root = image_folder(place / "images")
    (root / "test/bee").rename(root / "test/cat")
    return root


def _empty_class(place):
    root = image_folder(place / "images")
    (root / "train/cat").mkdir()
    return root


def _loop(place):
    root = image_folder(place / "images")
    shutil.rmtree(root / "train")
    (root / "train").symlink_to("train")
    return root


FOLDERS = {
    "missing": (lambda at: at / "nothing", "FileNotFoundError"),
    "a file": (lambda at: Path(__file__), "NotADirectoryError"),
    "no user's": (lambda at: Path("~nobody_of_that_name/images"), "there is no home folder for '~nobody_of_that_name/"),
    "no split": (lambda at: at, "no split 'train' in"),
    "one class": (lambda at: image_folder(at / "images", ("ant",)), "images-train has 1 class; at least 2 are needed"),
    "no class": (lambda at: image_folder(at / "images", ()), "no class folders in"),
    "an empty class": (_empty_class, "no images in class folder"),
    "other classes to test": (_other_test_classes, "the training set has 2: ant, bee; give a split with the same"),
    "links in a circle": (_loop, "no split 'train' in"),
    "text": (_replaced(b"no image"), "UnidentifiedImageError"),
    "nothing": (_replaced(b""), "UnidentifiedImageError"),
    "truncated PNG": (_replaced(image(size=60)[:-400]), "OSError: image file is truncated"),
    "truncated JPEG": (_replaced(image("jpeg", 60)[:-300], "0.jpg"), "ant/0.jpg (OSError"),
    "PostScript": (_replaced(POSTSCRIPT), "UnidentifiedImageError"),
    "bomb": (_replaced(png_of(100_000, 100_000)), "DecompressionBombError"),
    "bomb called .jpg": (_replaced(png_of(100_000, 100_000), "0.jpg"), "DecompressionBombError"),
    "small bomb": (
        _replaced(png_of(10_000, 10_000)),
        "DecompressionBombError: 10000 x 10000 pixels are more than 89478485",
    ),
    "no pixels": (_replaced(png_of(0, 0)), "ant/0.png (UnidentifiedImageError"),
    "another size": (_replaced(image(size=7)), "images differ in size"),
    "a pipe": (_replaced(os.mkfifo), "ant/0.png (OSError: it is no regular file); replace or remove it"),
    "a device": (_replaced(lambda file: file.symlink_to("/dev/zero")), "it is no regular file"),
    "a folder": (_replaced(Path.mkdir), "ant/0.png (IsADirectoryError"),
    "a link to nothing": (_replaced(lambda file: file.symlink_to("nothing")), "ant/0.png' (FileNotFoundError"),
    "a link to itself": (_replaced(lambda file: file.symlink_to(file)), "Too many levels of symbolic links"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_wrong_folder_of_images(case, tmp_path):
    make, message = FOLDERS[case]
    path = make(tmp_path)
    with unchanged(tmp_path):
        assert_told(training(tmp_path, *_FEW, "--config.data.source=folder", f"--config.data.path={path}"), 1, message)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_image_that_may_not_be_read(tmp_path):
    root = image_folder(tmp_path / "images")
    (root / "train/ant/0.png").chmod(0)
    done = training(tmp_path, "--config.data.source=folder", f"--config.data.path={root}")
    assert_told(done, 1, "PermissionError")


def _damaged_set(damage):
    def make(place):
        damage(prepared_set(place))
        return "tiny"

    return make


def _shards(number):
    def damage(folder):
        info = json.loads((folder / "dataset_info.json").read_text())
        info["splits"][0]["shardLengths"] = number
        (folder / "dataset_info.json").write_text(json.dumps(info))

    return damage


def _cut_records(folder):
    file = next(folder.glob("*array_record*"))
    file.write_bytes(file.read_bytes()[:100])


_PARSING = "Parsing builder name string"

PREPARED = {
    "name that leads out": (lambda at: "../../etc/passwd", _PARSING),
    "absolute name": (lambda at: "/etc/passwd", _PARSING),
    "version that leads out": (lambda at: "mnist:../..", _PARSING),
    "empty name": (lambda at: "", "data.name is empty"),
    "long name": (lambda at: "x" * 300, "unknown tfds data set"),
    "garbage for features": (
        _damaged_set(lambda f: (f / "features.json").write_text("{")),
        "cannot read tfds data set",
    ),
    "another class in features": (
        _damaged_set(lambda f: (f / "features.json").write_text('{"pythonClassName": "os.system"}')),
        "cannot read tfds data set",
    ),
    "garbage for info": (_damaged_set(lambda f: (f / "dataset_info.json").write_bytes(b"\xff")), "cannot read tfds"),
    "more shards than files": (_damaged_set(_shards(["2", "2"])), "cannot read"),
    "more examples than there are": (_damaged_set(_shards(["9"])), "cannot read"),
    "truncated records": (_damaged_set(_cut_records), "cannot read"),
}


@pytest.mark.parametrize("case", PREPARED)
def test_wrong_prepared_set(case, tmp_path):
    make, message = PREPARED[case]
    name = make(tmp_path)
    with unchanged(tmp_path):
        done = training(
            tmp_path,
            "--config.data.source=tfds",
            f"--config.data.name={name}",
            f"--config.data.path={tmp_path}",
            "--config.data.test_split=train",
        )
    assert_told(done, 1, message)


# --- weights --------------------------------------------------------------------------------------------


def _safetensors(header, length=None):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content


WEIGHTS = {
    "missing": ("nothing.safetensors", None, "no file '"),
    "a folder": ("folder.pth", Path.mkdir, "no file '"),
    "a pipe": ("pipe.safetensors", os.mkfifo, "no file '"),
    "huge header": ("w.safetensors", _safetensors({}, 1 << 60), "cannot read"),
    "truncated header": ("w.safetensors", _safetensors({}, 100), "cannot read"),
    "tensor beyond the end": (
        "w.safetensors",
        _safetensors({"a": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}),
        "cannot read",
    ),
    "type that NumPy lacks": (
        "w.safetensors",
        _safetensors({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}) + b"\0",
        "cannot read",
    ),
    "other tensors": (
        "w.safetensors",
        _safetensors({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}) + b"\0",
        "the tensors do not match torchvision's 'resnet18'; missing: bn1.bias",
    ),
    "pickle": ("w.pth", pickled, "contains objects other than weights, which are not loaded"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_wrong_weights(case, tmp_path):
    name, content, message = WEIGHTS[case]
    file = tmp_path / name
    if content is pickled:
        file.write_bytes(pickled(tmp_path))
    elif callable(content):
        content(file)
    elif content:
        file.write_bytes(content)
    with unchanged(tmp_path):
        done = training(tmp_path, f"--config.model.weights=torchvision:{file}", "--config.model.options.width=4")
    assert_told(done, 1, message)


# --- runs -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a tiny run, evaluated."""
    folder = tmp_path_factory.mktemp("finished")
    train(tiny_config(folder), folder / "run")
    results_lib.write(folder / "run/eval/step12-bins15", "clean", {}, {1: results_lib.Found({"accuracy": 0.5}, {})})
    return folder / "run"


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


EVALUATIONS = {
    "--suites=": (1, "suites and num_references must each name at least one"),
    "--suites=clean,,": (1, "unknown suite ''; allowed: clean"),
    "--suites=Clean": (1, "unknown suite 'Clean'; allowed: clean"),
    "--num_references=": (1, "suites and num_references must each name at least one"),
    "--num_references=1.5": (2, "--num_references takes whole numbers; got '1.5'"),
    "--num_references=-3": (1, "num_references must lie in 1..12"),
    "--num_references=1000000000000000000000000": (1, "num_references must lie in 1..12"),
    "--checkpoint=": (2, "--checkpoint takes whole numbers; got ''"),
    "--checkpoint=newest": (2, "--checkpoint takes whole numbers; got 'newest'"),
    "--checkpoint=-1": (1, "no checkpoint -1 in"),
    "--checkpoint=1000000000000000000000000": (1, "no checkpoint 1000000000000000000000000 in"),
    "--chunk_size=-1": (1, "evaluation.chunk_size must be at least 0; got -1"),
    "--num_bins=0": (1, "evaluation.num_bins must be in [1, 10000]; got 0"),
    "--num_bins=1e3": (2, "--num_bins=1e3: invalid literal for int()"),
    "--protocol=best": (2, "value should be one of <random|blt>"),
    "--draws=0": (2, "--draws=0"),
    "--seed=-1": (1, "seed must be at least 0, got -1"),
    "--suites=ood --ood=": (1, "ood"),
    "--suites=ood --ood=near=": (1, "unknown data set ''; allowed: tfds:NAME"),
    "--suites=ood --ood=images:/nowhere/at/all": (1, "cannot read folder '/nowhere/at/all'"),
    "--suites=ood --ood=tfds:../../etc": (1, "cannot read tfds data set '../../etc'"),
    "--suites=ood --ood=photographs,photographs": (1, "data sets must differ in name; 'photographs' is given twice"),
    "--suites=corruptions --corruptions=fog": (1, "unknown corrupted set 'fog'; allowed: tfds:NAME[@SPLIT]"),
    "--suites=corruptions --corruptions=npy:/nowhere": (1, "cannot read folder '/nowhere'"),
    "--suites=shift": (1, "suite 'shift' needs sets of the run's classes"),
    "--suites=shift --shift=digits": (1, "images of 'digits' are [8, 8, 1], but those of the run [6, 6, 1]"),
    "--suites=shift --shift=npz:/nowhere.npz@": (1, "cannot read '/nowhere.npz@'"),
    "--suites=probe --probe=folder:": (1, "unknown data set 'folder:'; allowed: tfds:NAME"),
}


@pytest.mark.parametrize("flags", EVALUATIONS)
def test_wrong_evaluation(flags, finished):
    status, message = EVALUATIONS[flags]
    with unchanged(finished):
        assert_told(quick_command("eval.py", f"--workdir={finished}", *flags.split()), status, message)


def _edited(**changes):
    """A record of a run with other values; None takes one away."""

    def damage(run):
        record = json.loads((run / "run.json").read_text())
        for key, value in changes.items():
            *groups, last = key.split("__")
            inner = record
            for group in groups:
                inner = inner[group]
            inner[last] = value
        (run / "run.json").write_text(json.dumps(record))

    return damage


def _pickle_for_references(run):
    (run / "references.npz").write_bytes(npz(images=np.array([Mark(run)] * 12)))


def _eval_json(change):
    def damage(run):
        file = next(run.glob("eval/step*/clean.json"))
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return damage


RUNS = {
    "garbage": (lambda run: (run / "run.json").write_text("{"), "run.json' is corrupt"),
    "not utf-8": (lambda run: (run / "run.json").write_bytes(b"\xff\xfe"), "run.json' is corrupt"),
    "a list": (lambda run: (run / "run.json").write_text("[]"), "run.json' is corrupt"),
    "a string for a number": (_edited(config__seed="one"), "run.json' is corrupt"),
    "a number for a section": (_edited(config__training=5), "run.json' is corrupt"),
    "a huge number": (_edited(config__seed=10**400), "seed must be in [0, 4294967295]"),
    "nan": (_edited(config__anchoring__mask_prob=float("nan")), "mask_prob must be in [0, 1]; got nan"),
    "a key of nobody": (_edited(config__color=1), "color"),
    "another model": (_edited(config__model__name="../resnet"), "unknown model '../resnet'"),
    "pickle for references": (_pickle_for_references, "references.npz' is missing or corrupt (Object arrays"),
    "no references": (lambda run: (run / "references.npz").unlink(), "references.npz' is missing or corrupt"),
    "no checkpoints": (lambda run: shutil.rmtree(run / "checkpoints"), "no checkpoint in"),
    "infinite results": (
        _eval_json(lambda content: content["results"]["1"].update(accuracy=10**400)),
        "clean.json' is damaged",
    ),
    "results of no suite": (_eval_json(lambda content: content.pop("suite")), "clean.json' is damaged"),
    "results too deep": (
        lambda run: next(run.glob("eval/step*/clean.json")).write_text("[" * 100_000),
        "clean.json' is damaged",
    ),
}


@pytest.mark.parametrize("case", RUNS)
def test_damaged_run(case, copied):
    damage, message = RUNS[case]
    damage(copied)
    with unchanged(copied):
        assert_told(quick_command("eval.py", f"--workdir={copied}"), 1, message)


def test_workdir_that_is_no_folder_of_a_run(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    with unchanged(tmp_path):
        for name in ("file", "loop", "nothing"):
            assert_told(quick_command("eval.py", f"--workdir={tmp_path / name}"), 1, "no run in")


def test_wrong_exports(finished, tmp_path):
    (tmp_path / "there.pth").write_text("")
    for flags, status, message in (
        ([f"--out={tmp_path / 'there.pth'}"], 1, "torchvision has no 'mlp'; allowed sources: none"),
        (["--out="], 2, "--out takes the path of a new file; got ''"),
        (["--out=x", "--source=keras"], 2, "value should be one of <torchvision|timm|huggingface|anchoring>"),
        (["--out=x", "--checkpoint=last"], 2, "--checkpoint takes whole numbers; got 'last'"),
    ):
        with unchanged(tmp_path):
            done = quick_command("-m", "anchor_jax.to_torch", f"--workdir={finished}", *flags)
        assert_told(done, status, message)


def test_wrong_comparisons(finished, tmp_path):
    (tmp_path / "file").write_text("")
    for arguments, status, message in (
        ([finished, f"--out={tmp_path / 'out'}"], 1, "a comparison takes at least two runs; got 1"),
        ([finished, finished, f"--out={tmp_path / 'out'}"], 1, "are the same run: config and seed 0 are equal"),
        ([finished, tmp_path, f"--out={tmp_path / 'out'}"], 1, "no run in"),
        ([finished, finished, "--out="], 2, "--out takes the path of a folder; got ''"),
        ([finished, finished, f"--out={tmp_path / 'file'}"], 1, "file'"),
        ([finished, finished, f"--out={tmp_path / 'out'}", "--num_references=0"], 2, "--num_references=0"),
        ([finished, finished], 2, "--out must have a value"),
    ):
        with unchanged(tmp_path):
            assert_told(quick_command("-m", "anchor_jax.compare", *arguments), status, message)


# --- what is unusual and right --------------------------------------------------------------------------


def test_spaces_and_letters_of_any_language_in_paths(tmp_path):
    place = tmp_path / "ein Käfer 虫"
    place.mkdir()
    root = image_folder(place / "images", ("ant 1", 'bee\'s "2"', "虫"))
    (place / "c ö.py").write_text(
        f"{_BASE}    config.model.name = 'mlp'\n    config.model.options.hidden = (4,)\n"
        "    config.training.total_epochs = 1.0\n    return config\n"
    )
    flags = ("--config.data.source=folder", f"--config.data.path={root}")
    done = training(place, *_FEW, *flags, config=place / "c ö.py")
    assert (done.returncode, done.stderr) == (0, "")
    done = quick_command("eval.py", f"--workdir={place / 'run'}", "--num_references=1")
    assert (done.returncode, done.stderr) == (0, "")
