"""Tests of `train.py` with bad config files: the error is one line, and files stay as they were."""

import pytest
from bad_commands import BASE_CONFIG, training, unchanged
from commands import assert_error

_HINT = "; its get_config() must return anchor_jax.config.base() with changes"

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
    "holds itself": (
        f"{BASE_CONFIG}    config.unlock()\n    config.me = config\n    return config\n",
        "(RecursionError: ",
    ),
    "section of a number": (
        f"{BASE_CONFIG}    config.training = 5\n    return config\n",
        "(TypeError: Could not override",
    ),
    "string for a number": (
        f"{BASE_CONFIG}    config.seed = 'one'\n    return config\n",
        "(TypeError: Could not override",
    ),
}


@pytest.mark.parametrize("case", CONFIG_FILES)
def test_train_reports_config_files_that_fail_to_load(case, tmp_path):
    content, message = CONFIG_FILES[case]
    (tmp_path / "config.py").write_bytes(content if isinstance(content, bytes) else content.encode())
    with unchanged(tmp_path):
        done = training(tmp_path, config=tmp_path / "config.py")
    assert_error(done, 1, message)
    assert done.stderr.startswith("error: cannot load the config file (")
    assert done.stderr.strip().endswith(_HINT)


def test_train_can_be_interrupted_in_a_config_file(tmp_path):
    (tmp_path / "config.py").write_text("def get_config():\n    raise KeyboardInterrupt\n")
    done = training(tmp_path, config=tmp_path / "config.py")
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_train_rejects_paths_without_a_config_file(tmp_path):
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "loop.py").symlink_to("loop.py")
    for name, message in (
        ("folder", "Is a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("missing", "unknown config '"),
        ("x" * 300, "unknown config '"),
    ):
        assert_error(training(tmp_path, config=tmp_path / f"{name}.py"), 1, message)
    (tmp_path / "12:30.py").write_text(BASE_CONFIG)
    message = "what follows a colon is an argument of get_config; give a path without a colon"
    assert_error(training(tmp_path, config=tmp_path / "12:30.py"), 1, message)
    assert_error(training(tmp_path, config=""), 1, "unknown config ''; allowed: cifar10, ")


_DICT_CONFIG = "from ml_collections import ConfigDict\nfrom anchor_jax.config import base\n\n\ndef get_config():\n"

CONFIGS = {
    "a dictionary": ("    return {'seed': 1}\n", "config.anchoring.bank_per_class is missing; start the config from"),
    "nothing in it": ("    return ConfigDict()\n", "config.anchoring.bank_per_class is missing; start the config from"),
    "no section": (
        "    config = base()\n    config.unlock()\n    del config.data\n    return config\n",
        "config.data.channels is missing; start the config from anchor_jax.config.base()",
    ),
    "bool for a number": (
        "    return ConfigDict(base().to_dict() | {'seed': True})\n",
        "config.seed must be an integer; got True (bool)",
    ),
    "list of strings for numbers": (
        "    config = base().to_dict()\n    config['data']['mean'] = ['0.5']\n    return ConfigDict(config)\n",
        "config.data.mean must be a tuple of numbers; got ('0.5',) (tuple)",
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
def test_train_rejects_configs_not_made_by_base(case, tmp_path):
    body, message = CONFIGS[case]
    (tmp_path / "config.py").write_text(_DICT_CONFIG + body)
    with unchanged(tmp_path):
        assert_error(training(tmp_path, config=tmp_path / "config.py"), 1, message)
