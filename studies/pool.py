"""Ask a pool of runs, see `studies.ensembles`.

python -m studies.pool --kind ensemble --out OUT --suites clean,ood RUN RUN RUN
"""

from pathlib import Path

from absl import flags

from anchor_jax.cli import app
from anchor_jax.evaluation import Options
from studies.ensembles import KINDS, POOLED_SUITES, evaluate_pool

KIND = flags.DEFINE_enum("kind", None, KINDS, "What the members are.", required=True)
OUT = flags.DEFINE_string("out", None, "The folder of the results.", required=True)
MEMBERS = flags.DEFINE_integer("members", 10, "How many, but of an ensemble.", lower_bound=1)
SUITES_ASKED = flags.DEFINE_list("suites", ["clean"], f"What to evaluate: {', '.join(POOLED_SUITES)}.")
OOD = flags.DEFINE_list("ood", [], "Sets of anomalies, as eval.py has them.")


def main(*workdirs: str) -> None:
    """Flags to values, then one call."""
    evaluate_pool(
        KIND.value,
        [Path(workdir) for workdir in workdirs],
        app.path("out", OUT.value),
        tuple(SUITES_ASKED.value),
        num_members=MEMBERS.value,
        options=Options(ood=tuple(OOD.value)),
    )


if __name__ == "__main__":
    app.run(main, arguments=True)
