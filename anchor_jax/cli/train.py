"""Train a network, or resume a run."""

from absl import flags

from anchor_jax.cli import app, config_flag
from anchor_jax.training.loop import train

CONFIG = app.define_config()
WORKDIR = app.define_path(
    "workdir",
    None,
    "Folder of the run. If it holds a run, the run resumes from its latest checkpoint.",
    required=True,
    buckets=True,
)
ACCEPT_CHANGES = flags.DEFINE_list(
    "accept_changes",
    [],
    "Config keys, comma-separated, in which a resumed run may differ from its recorded config; 'data' accepts a "
    "changed training set.",
)
PROFILE = flags.DEFINE_bool("profile", False, "Trace some steps into WORKDIR/profile, for TensorBoard or Perfetto.")
TRACKER = flags.DEFINE_list(
    "tracker",
    ["tensorboard"],
    "Where metrics go besides WORKDIR/metrics.jsonl, comma-separated: tensorboard, wandb, mlflow. Given explicitly, "
    "they also get pictures: references and images, reliability diagrams.",
)

USAGE = app.Usage(
    description=f"{app.COMMANDS['train']} Rerun the same command to resume after an interruption.",
    synopsis="--config=CONFIG --workdir=WORKDIR [--config.KEY=VALUE ...] [flags]",
    groups={"Config": (CONFIG,), "Run": (WORKDIR, TRACKER, ACCEPT_CHANGES, PROFILE)},
    notes={"Configs": ", ".join(config_flag.names())},
    examples={
        "handwritten digits: a minute on two CPU cores, no download": "--config digits --workdir runs/digits",
        "CIFAR-10, prepared by tensorflow-datasets": "--config cifar10 --workdir runs/c10",
        "a standard network, the baseline": (
            "--config cifar10 --workdir runs/c10-standard --config.anchoring.enabled=False"
        ),
        "a config file of your own": "--config mine.py --workdir runs/mine --config.training.batch_size=64",
    },
)


def main() -> None:
    """Call `train` with the values of the flags."""
    pictures = None
    if TRACKER.present:
        from anchor_jax.reporting.pictures import TrainingPictures  # matplotlib, which nothing else here needs

        pictures = TrainingPictures()
    train(
        app.load_config(CONFIG),
        WORKDIR.value,
        profile=PROFILE.value,
        accept_changes=tuple(ACCEPT_CHANGES.value),
        trackers=tuple(TRACKER.value),
        pictures=pictures,
    )


def run() -> None:
    """Run the command line."""
    app.run(main, distributed=True, usage=USAGE)
