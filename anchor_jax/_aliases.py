"""The module paths of version 0.1: `anchor_jax.objective` is `anchor_jax.core.losses`, the same module object."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

MOVED = {
    "anchor_jax.acquisition": "anchor_jax.contrib.bayesopt",
    "anchor_jax.anchoring": "anchor_jax.core.anchoring",
    "anchor_jax.checks": "anchor_jax.core.checks",
    "anchor_jax.compare": "anchor_jax.cli.compare",
    "anchor_jax.comparison": "anchor_jax.reporting.comparison",
    "anchor_jax.data.corrupted": "anchor_jax.data.published_corruptions",
    "anchor_jax.data.spec": "anchor_jax.data.dataset_spec",
    "anchor_jax.errors": "anchor_jax.core.errors",
    "anchor_jax.export.__main__": "anchor_jax.cli.export",
    "anchor_jax.exported": "anchor_jax.export.format",
    "anchor_jax.inference": "anchor_jax.core.inference",
    "anchor_jax.objective": "anchor_jax.core.losses",
    "anchor_jax.pager": "anchor_jax.contrib.pager",
    "anchor_jax.parallel": "anchor_jax.runtime.mesh",
    "anchor_jax.predictor": "anchor_jax.runs.predictor",
    "anchor_jax.processes": "anchor_jax.runtime.multihost",
    "anchor_jax.regression": "anchor_jax.contrib.regression",
    "anchor_jax.to_torch": "anchor_jax.cli.to_torch",
    "anchor_jax.training.prediction": "anchor_jax.runs.load",
    "anchor_jax.uncertainty": "anchor_jax.core.uncertainty",
}


class MovedModules(MetaPathFinder, InspectLoader):
    """Finder and loader of old paths, for `import` and for `python -m`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for an old path, None for any other."""
        del path, target
        if (new_path := _new_path(fullname)) is None or (new_spec := importlib.util.find_spec(new_path)) is None:
            return None
        return ModuleSpec(fullname, self, origin=new_spec.origin)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module at the new path."""
        module = importlib.import_module(str(_new_path(spec.name)))
        spec.loader_state = module.__spec__  # the import system is about to replace it
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restore the spec of the module, which is already executed."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the code at the new path, for `python -m`."""
        spec = importlib.util.find_spec(str(_new_path(fullname)))
        assert spec is not None
        assert isinstance(spec.loader, InspectLoader)
        return spec.loader.get_code(spec.name)

    def get_source(self, fullname: str) -> None:
        """Return None: the source is at the new path."""
        del fullname


def install() -> None:
    """Make the old paths importable."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        # first, or the submodules of a moved package would be loaded again under their old paths
        sys.meta_path.insert(0, MovedModules())


def _new_path(fullname: str) -> str | None:
    """Return the new path of a moved module, or of a module in a moved package; None for any other."""
    package, rest = fullname, ""
    while package.startswith("anchor_jax."):
        if package in MOVED:
            return MOVED[package] + rest
        package, _, name = package.rpartition(".")
        rest = f".{name}{rest}"
    return None
