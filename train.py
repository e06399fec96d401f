"""Train a network: python train.py --config configs/digits.py --workdir runs/digits."""

from absl import flags
from ml_collections import config_flags

from anchor_jax import command
from anchor_jax.training.loop import train

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "An experiment of configs/; --config.KEY=VALUE changes a key.",
    lock_config=False,  # any option of a model may be given, whether or not the experiment has it; all else is checked
    accept_new_attributes=True,
)
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; a run that is there goes on.", required=True)
PROFILE = flags.DEFINE_bool("profile", False, "Trace some steps into WORKDIR/profile, for TensorBoard or Perfetto.")
ACCEPT_CHANGES = flags.DEFINE_list(
    "accept_changes", [], "Keys in which a run that goes on may differ from how it began; 'data': the training set."
)


def main() -> None:
    """Flags to values, then one call."""
    accept_changes = tuple(ACCEPT_CHANGES.value)
    train(
        command.loaded(CONFIG),
        command.path("workdir", WORKDIR.value),
        profile=PROFILE.value,
        accept_changes=accept_changes,
    )


if __name__ == "__main__":
    command.run(main, distributed=True)
