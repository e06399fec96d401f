"""Keep the module paths of version 0.1 importable: `anchor_jax.objective` is `anchor_jax.core.losses`, and so on."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "anchor_jax.acquisition": "anchor_jax.contrib.bayesopt",
    "anchor_jax.anchoring": "anchor_jax.core.anchoring",
    "anchor_jax.checks": "anchor_jax.core.checks",
    "anchor_jax.comparison": "anchor_jax.reporting.comparison",
    "anchor_jax.errors": "anchor_jax.core.errors",
    "anchor_jax.exported": "anchor_jax.export.format",
    "anchor_jax.inference": "anchor_jax.core.inference",
    "anchor_jax.objective": "anchor_jax.core.losses",
    "anchor_jax.pager": "anchor_jax.contrib.pager",
    "anchor_jax.parallel": "anchor_jax.runtime.mesh",
    "anchor_jax.predictor": "anchor_jax.runs.predictor",
    "anchor_jax.processes": "anchor_jax.runtime.multihost",
    "anchor_jax.regression": "anchor_jax.contrib.regression",
    "anchor_jax.training.prediction": "anchor_jax.runs.load",
    "anchor_jax.uncertainty": "anchor_jax.core.uncertainty",
}
# `python -m anchor_jax.compare` and `python -m anchor_jax.to_torch`
COMMANDS = {
    "anchor_jax.compare": "anchor_jax.cli.compare",
    "anchor_jax.to_torch": "anchor_jax.cli.to_torch",
}


class MovedModules(MetaPathFinder, Loader):
    """Resolve an old path to the module at the new one; both names are the same module object."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None):
        """Return a spec for a moved module, None for any other."""
        del path, target
        if fullname in MOVED:
            return ModuleSpec(fullname, self)
        if fullname in COMMANDS:
            moved = importlib.util.find_spec(COMMANDS[fullname])
            assert moved is not None
            return importlib.util.spec_from_file_location(fullname, moved.origin)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module at the new path."""
        module = importlib.import_module(MOVED[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Undo what the import system set on the module; it is already executed."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Make the old paths importable."""
    sys.meta_path.append(MovedModules())
