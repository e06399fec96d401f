"""Compiled programs, kept on disk from command to command."""

import os
import re
import tempfile
import warnings

import jax

from anchor_jax.runtime.atomic_files import cache_folder, prune_cache

# older ones load CPU programs, but log each as an error where there is AVX-512 (github.com/jax-ml/jax/issues/38445)
MIN_JAX_VERSION = (0, 10, 2)
_MAX_BYTES = 2**30


def enable_compilation_cache() -> None:
    """Let the next process load the programs that this one compiles; a warning where that cannot be.

    They go to the cache folder, unless JAX itself has been told where to, or not to.
    """
    given = jax.config.values
    if given["jax_compilation_cache_dir"] is not None or not given["jax_enable_compilation_cache"]:
        return
    if jax.__version_info__ < MIN_JAX_VERSION:
        return
    try:
        folder = _writable_folder()
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        warnings.warn(f"compiled programs cannot be kept: {error}", stacklevel=2)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # the many small ones add up to seconds


def discard_corrupt_entries(warning: str) -> None:
    """Remove the program that this warning of JAX says cannot be read; JAX itself would keep it, and warn each time."""
    damaged = re.match(r"Error reading persistent compilation cache entry for '(\w+)'", warning)
    if damaged and jax.config.values["jax_compilation_cache_dir"] == str(_folder()):
        for file in _folder().glob(f"{damaged[1]}-*-cache"):
            file.unlink(missing_ok=True)


def _folder():
    # XLA compiles for the number of cores, which JAX's own key of a program leaves out
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cache_folder() / f"compiled-{cores}-cores"


def _writable_folder():
    folder = _folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # they are code: who can write here can run anything
    with tempfile.TemporaryFile(dir=folder):
        pass  # it can be written to
    prune_cache(folder, _MAX_BYTES)
    return folder
