"""The flag `--config`: the name of a config that comes with the package, or the path of a config file."""

import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import NoReturn

from absl import flags
from ml_collections import FrozenConfigDict, config_flags

import anchor_jax
from anchor_jax import config
from anchor_jax.cli.console import FAILURE_STATUS, USAGE_STATUS, exit_with_error
from anchor_jax.config import Config
from anchor_jax.core import errors
from anchor_jax.runtime.paths import expanded


def folder() -> Path:
    """Return the folder of the configs: `configs/` of a checkout, `anchor_jax/configs/` of an installed wheel."""
    package = Path(anchor_jax.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """Return the names that `--config` takes; a file that begins with "_" is shared by others and is no experiment."""
    return sorted(file.stem for file in folder().glob("*.py") if not file.stem.startswith("_"))


def resolve(name_or_path: str) -> str:
    """Return the path of a config; an argument for its `get_config`, as in `NAME:ARGUMENT`, is kept.

    Raises:
      UserError: neither a config nor a file has this name.
    """
    if "://" in name_or_path:
        name_or_path = str(expanded("--config", name_or_path))
    name, colon, argument = name_or_path.partition(":")
    path = f"{folder() / name}.py" if name in names() else str(expanded("--config", name))
    if colon and not os.path.lexists(path) and os.path.isfile(expanded("--config", name_or_path)):
        raise errors.UserError(
            f"--config is '{name_or_path}', but what follows a colon is an argument of get_config; give a path without "
            "a colon"
        )
    if not name or not os.path.lexists(path):
        raise errors.unknown("config", name, [*names(), "the path of a file"])
    return f"{path}{colon}{argument}"


def define_config() -> flags.FlagHolder[Config]:
    """Define the flags `--config` and `--config.KEY`; see `load_config`."""
    help_text = "Name of a config, or path of a config file."
    try:
        # the options of a model need not be in the file; `check_overrides` rejects all other unknown keys
        flag = config_flags.DEFINE_config_file("config", None, help_text, lock_config=False, accept_new_attributes=True)
    except flags.Error as error:  # defining the flag already reads --flagfile
        exit_with_error(USAGE_STATUS, str(error).removeprefix("ERROR:: "))
    flags.FLAGS["config"].parser = _ConfigParser(flags.FLAGS["config"].parser)
    return flag


def check_overrides(arguments: Sequence[str]) -> None:
    """Exit with an error if a flag `--config.KEY` names an unknown key."""
    for argument in arguments:
        override = re.match(r"--?config\.([^=]*)", argument)
        if override and not config.is_known(override[1]):
            exit_with_error(USAGE_STATUS, config.unknown_key(override[1]))


def load_config(flag: flags.FlagHolder[Config]) -> Config:
    """Return the config of a flag made by `define_config`, with its overrides, or exit with an error."""
    if flag.default is None and not flag.present:
        exit_with_error(
            USAGE_STATUS, f"--{flag.name} must have a value: one of {', '.join(names())}, or the path of a config file"
        )
    try:
        config.flatten(flag.value)
    except Exception as error:  # a config file is a program and may raise anything
        exit_with_load_error(error.__cause__ or error)
    return flag.value


def exit_with_load_error(error: BaseException) -> NoReturn:
    """Report why a config file cannot be loaded, and exit."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    # a locked ConfigDict lists all its fields before it suggests the nearest one
    reason = re.sub(r"Other fields present:.*\n", "", text.strip('"').replace("\\n", "\n"))
    hint = config.rename_hint(text) or "its get_config() must return anchor_jax.config.base() with changes"
    exit_with_error(FAILURE_STATUS, f"cannot load the config file ({type(error).__name__}: {reason}); {hint}")


def exit_if_config_error(error: flags.Error) -> None:
    """Report an unknown config, or the exception of a config file that ml_collections turned into a flag error."""
    cause = error.__context__
    if cause and cause.__context__ and str(cause).startswith("Error whilst parsing config file"):
        exit_with_load_error(cause.__context__)
    if isinstance(cause, errors.UserError):
        exit_with_error(FAILURE_STATUS, str(cause))


class _ConfigParser(flags.ArgumentParser):
    """Load a config given by name or path; `load_file` is the parser of ml_collections, which takes paths."""

    def __init__(self, load_file: flags.ArgumentParser):
        self._load_file = load_file

    def parse(self, argument: str):
        path = resolve(argument)
        _make_configs_importable(Path(path.partition(":")[0]))
        loaded = self._load_file.parse(path)
        # so that flags can override its keys
        return loaded.as_configdict() if isinstance(loaded, FrozenConfigDict) else loaded

    def flag_type(self) -> str:
        return self._load_file.flag_type()


def _make_configs_importable(file: Path) -> None:
    """Let config files import one another with `from configs import NAME`, in a checkout and in an installed wheel."""
    folders = [folder()]
    if file.parent.resolve().name == "configs" and not file.parent.resolve().samefile(folder()):
        folders.insert(0, file.parent.resolve())
    spec = ModuleSpec("configs", None, is_package=True)
    spec.submodule_search_locations = [str(path) for path in folders]
    sys.modules["configs"] = importlib.util.module_from_spec(spec)
