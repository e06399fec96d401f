"""The suites, one file each. A new suite is a file and a line in `SUITES`; its own options are a base of `Options`."""

import dataclasses
from typing import Any

from anchor_jax.core.errors import UserError
from anchor_jax.evaluation.context import EvalContext
from anchor_jax.evaluation.options import CommonOptions, describe
from anchor_jax.evaluation.presentation import Table
from anchor_jax.evaluation.results import Results, SuiteResult, parse_storage_name
from anchor_jax.evaluation.suite import Suite
from anchor_jax.evaluation.suites.clean import Clean
from anchor_jax.evaluation.suites.conformal import Conformal, ConformalOptions
from anchor_jax.evaluation.suites.corruptions import Corruptions, CorruptionsOptions
from anchor_jax.evaluation.suites.landscape import Landscape
from anchor_jax.evaluation.suites.ood import Ood, OodOptions
from anchor_jax.evaluation.suites.probe import Probe, ProbeOptions
from anchor_jax.evaluation.suites.protocols import Protocols, ProtocolsOptions
from anchor_jax.evaluation.suites.reference_use import ReferenceUse
from anchor_jax.evaluation.suites.shift import Shift, ShiftOptions

# in the order of the report
SUITES: dict[str, Suite[Any]] = {
    suite.name: suite
    for suite in (
        Clean(),
        Corruptions(),
        Shift(),
        Ood(),
        Conformal(),
        Protocols(),
        ReferenceUse(),
        Probe(),
        Landscape(),
    )
}


@dataclasses.dataclass(frozen=True)
class Options(
    ProtocolsOptions, ProbeOptions, ConformalOptions, OodOptions, ShiftOptions, CorruptionsOptions, CommonOptions
):
    """Options of an evaluation. Datasets are named as in `anchor_jax.data.open_dataset`."""


Options.__doc__ = f"{Options.__doc__}\n\n{describe(Options)}\n"


class UnknownSuite(Suite[None]):
    """A suite that this version does not have; only its numbers are shown."""

    def __init__(self, name: str):
        self.name = self.title = name

    def prepare(self, context: EvalContext) -> None:
        """Reject the suite."""
        raise UserError(f"unknown suite '{self.name}'")

    def measure(self, prepared: None, num_references: int) -> SuiteResult:
        """Reject the suite."""
        raise UserError(f"unknown suite '{self.name}'")

    def tables(self, results: Results) -> list[Table]:
        """Return no tables."""
        return []


def find(name: str) -> Suite[Any]:
    """Return the suite of stored results.

    Args:
      name: storage name, such as "clean" or "clean-blt".
    """
    suite = parse_storage_name(name).suite
    return SUITES.get(suite) or UnknownSuite(suite)


def title(name: str) -> str:
    """Return the heading of stored results."""
    parsed = parse_storage_name(name)
    heading = find(name).title if parsed.dataset is None else f"{find(name).title_of_other}: {parsed.dataset}"
    return heading + (", with transduction (BLT)" if parsed.protocol == "blt" else "")


def report_order(name: str) -> tuple[int, str]:
    """Return the key by which stored results are sorted."""
    known = list(SUITES)
    suite = parse_storage_name(name).suite
    return (known.index(suite) if suite in known else len(known), name)
