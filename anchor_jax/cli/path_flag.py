"""Flags whose values are paths: of this machine, or in a bucket where that is served."""

from pathlib import Path

from absl import flags

from anchor_jax.runtime.paths import expanded

flags.disclaim_key_flags()  # a flag belongs to the module that calls `define_path`


def define_path(
    name: str,
    default: str | None,
    help: str,
    *,
    what: str = "a folder",
    required: bool = False,
    buckets: bool = False,
) -> flags.FlagHolder[Path]:
    """Define a flag that takes a path, see `runtime.paths`; an address exits with an error before anything is done.

    Args:
      name: of the flag.
      default: its value if it is not given.
      help: for `--help`.
      what: what the path names, for messages.
      required: whether the flag must be given.
      buckets: whether it may be in a bucket, such as gs://bucket/run.
    """
    return flags.DEFINE(
        _PathParser(name, what, buckets), name, default, help, serializer=_Serializer(), required=required
    )


class _PathParser(flags.ArgumentParser[Path]):
    def __init__(self, name: str, what: str, buckets: bool):
        self._name, self._what, self._buckets = name, what, buckets

    def parse(self, argument: str | Path) -> Path:
        if argument == "":
            raise ValueError(f"--{self._name} must be the path of {self._what}; got ''")
        return expanded(f"--{self._name}", argument, buckets=self._buckets)

    def flag_type(self) -> str:
        return "path"


class _Serializer(flags.ArgumentSerializer[Path]):
    def serialize(self, value: Path) -> str:
        return str(value)
