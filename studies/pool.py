"""Evaluate an ensemble, MC dropout or test-time augmentation of standard networks.

    python -m studies.pool --kind ensemble --out OUT --suites clean,ood RUN RUN RUN

See `anchor_jax.evaluation.ensembles`.
"""

from absl import flags

from anchor_jax.cli import app
from anchor_jax.evaluation import Options
from anchor_jax.evaluation.ensembles import ENSEMBLE_SUITES, KINDS, evaluate_ensemble

KIND = flags.DEFINE_enum("kind", None, KINDS, "What the members are.", required=True)
OUT = app.define_path("out", None, "Folder of the results.", required=True)
MEMBERS = flags.DEFINE_integer("members", 10, "Number of members, except for the kind ensemble.", lower_bound=1)
SUITES = flags.DEFINE_list("suites", ["clean"], f"Comma-separated suites, of {', '.join(ENSEMBLE_SUITES)}.")
OOD = flags.DEFINE_list("ood", [], "Comma-separated anomaly datasets, as in eval.py.")


def main(*workdirs: str) -> None:
    """Evaluate the runs in these folders."""
    evaluate_ensemble(
        KIND.value,
        workdirs,
        OUT.value,
        tuple(SUITES.value),
        num_members=MEMBERS.value,
        options=Options(ood=tuple(OOD.value)),
    )


if __name__ == "__main__":
    app.run(main, arguments=True)
