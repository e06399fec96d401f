"""The interface of data sources."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from anchor_jax.core.errors import UserError
from anchor_jax.data.dataset import Dataset
from anchor_jax.data.decoding import EncodedDataset
from anchor_jax.data.local_copies import local_data


class SourceRequest(NamedTuple):
    """The arguments of `load` that locate a split."""

    split: str
    name: str
    path: str

    def required_path(self, expected: str) -> Path:
        """Return the absolute path on this machine, after copying data from a bucket.

        Raises:
          UserError: it is empty; the message ends in `expected`, which describes the layout on disk.
        """
        if not self.path:
            raise UserError(f"data.path is empty; {expected}")
        return local_data("data.path", self.path)


class Source(NamedTuple):
    """A kind of data source.

    Attributes:
      open: returns a split in memory, or its encoded images. Labels and images are validated by the caller.
      located_by: the argument of `load` that locates a dataset: "name", "path", or "" if there is only one.
      is_encoded: whether `open` returns an `EncodedDataset`; only its images can be resized and streamed.
    """

    open: Callable[[SourceRequest], Dataset | EncodedDataset]
    located_by: Literal["name", "path", ""]
    is_encoded: bool
