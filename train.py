"""Train a network: python train.py --config configs/digits.py --workdir runs/digits."""

from absl import flags

from anchor_jax.cli import app
from anchor_jax.training.loop import train

CONFIG = app.define_config("An experiment of configs/; --config.KEY=VALUE changes a key.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; a run that is there goes on.", required=True)
PROFILE = flags.DEFINE_bool("profile", False, "Trace some steps into WORKDIR/profile, for TensorBoard or Perfetto.")
ACCEPT_CHANGES = flags.DEFINE_list(
    "accept_changes", [], "Keys in which a run that goes on may differ from how it began; 'data': the training set."
)


def main() -> None:
    """Flags to values, then one call."""
    accept_changes = tuple(ACCEPT_CHANGES.value)
    train(
        app.load_config(CONFIG),
        app.path("workdir", WORKDIR.value),
        profile=PROFILE.value,
        accept_changes=accept_changes,
    )


if __name__ == "__main__":
    app.run(main, distributed=True)
