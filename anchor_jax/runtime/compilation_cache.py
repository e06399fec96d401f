"""The persistent compilation cache of the command lines."""

import contextlib
import os
import re
import tempfile
import warnings
from pathlib import Path

import jax

from anchor_jax.core.errors import UserError
from anchor_jax.runtime.atomic_files import cache_folder, prune_cache

# Earlier versions log every cached CPU program as an error on machines with AVX-512, although they load it
# (github.com/jax-ml/jax/issues/38445).
MIN_JAX_VERSION = (0, 10, 2)
_MAX_BYTES = 2**30


def enable_compilation_cache() -> None:
    """Cache compiled programs on disk, so that later processes load them; warn if that is not possible.

    They are stored in the cache folder, at most 1 GiB. JAX's own settings, `JAX_COMPILATION_CACHE_DIR` and
    `JAX_ENABLE_COMPILATION_CACHE`, take precedence.
    """
    settings = jax.config.values
    if settings["jax_compilation_cache_dir"] is not None or not settings["jax_enable_compilation_cache"]:
        return
    if jax.__version_info__ < MIN_JAX_VERSION:
        return
    try:
        folder = _writable_folder()
    except (OSError, UserError) as error:
        warnings.warn(f"cannot cache compiled programs: {error}", stacklevel=2)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # many small programs add up to seconds


def discard_corrupt_entries(warning: str) -> None:
    """Remove the cached program that a warning of JAX reports as unreadable; otherwise JAX warns in every process."""
    unreadable = re.match(r"Error reading persistent compilation cache entry for '(\w+)'", warning)
    if not unreadable:
        return
    with contextlib.suppress(OSError, UserError):  # no home directory, or another process removes the entry, too
        if jax.config.values["jax_compilation_cache_dir"] == str(_folder()):
            for file in _folder().glob(f"{unreadable[1]}-*-cache"):
                file.unlink(missing_ok=True)


def _folder() -> Path:
    # XLA compiles for the number of cores, which JAX leaves out of its cache key
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cache_folder() / f"compiled-{cores}-cores"


def _writable_folder() -> Path:
    folder = _folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # programs are code: only their owner may write them
    with tempfile.TemporaryFile(dir=folder):
        pass  # raises if the folder is not writable
    prune_cache(folder, _MAX_BYTES)
    return folder
