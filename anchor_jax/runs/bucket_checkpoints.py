"""Settings of orbax for checkpoints in a bucket: a commit file instead of a rename, and arrays in S3.

Orbax writes `gs://` with tensorstore's client of Google Cloud Storage, and commits a checkpoint by writing the file
`commit_success.txt` last. It does not support `s3://`, for which tensorstore has a client, too.
"""

# orbax has partly unknown types and no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportPrivateUsage=false

import functools
import os
import re
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from anchor_jax.core.errors import UserError
from anchor_jax.runtime import object_storage


def manager_options(folder: Path) -> dict[str, Any]:
    """Return the options of orbax's checkpoint manager that differ in a bucket.

    Raises:
      UserError: the installed version of orbax cannot write there.
    """
    if not object_storage.is_remote(folder):
        return {}
    if os.fspath(folder).startswith("s3://"):
        _add_s3()
    return {"temporary_path_class": ocp.path.atomicity.CommitFileTemporaryPath, "todelete_subdir": None}


@functools.cache
def _add_s3() -> None:
    """Patch the functions by which orbax chooses a client of tensorstore, so that it stores arrays in S3."""
    try:
        from orbax.checkpoint._src.path import gcs_utils
        from orbax.checkpoint._src.serialization import tensorstore_utils

        of_gcs, uses_gcs = gcs_utils.get_kvstore_for_gcs, tensorstore_utils._use_gcs_driver
        normalize = tensorstore_utils._normalize_path
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"orbax-checkpoint {ocp.__version__} cannot be used with s3:// ({error}); install another version, or use "
            "a folder of this machine or gs://"
        ) from error

    def store_of(address: str) -> dict[str, Any]:
        if match := re.fullmatch("s3://([^/]+)/?(.*)", address):
            return {"driver": "s3", "bucket": match[1], "path": match[2], **object_storage.s3_options()}
        return of_gcs(address)

    def uses_client(address: str) -> bool:
        return address.startswith("s3://") or uses_gcs(address)

    def normalized(address: str) -> str:
        return re.sub("^s3:/+", "s3://", normalize(address))

    gcs_utils.get_kvstore_for_gcs = store_of
    tensorstore_utils._use_gcs_driver = uses_client
    tensorstore_utils._normalize_path = normalized
