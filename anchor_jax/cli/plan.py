"""Plan a run on TPUs or GPUs that are not there: memory and time."""

import json
from functools import partial
from pathlib import Path

from absl import flags

from anchor_jax.cli import app, config_flag
from anchor_jax.cli.console import USAGE_STATUS, exit_with_error
from anchor_jax.config import validate, with_plain_values
from anchor_jax.planning.advice import Trial, find_fitting
from anchor_jax.planning.content import plan_content
from anchor_jax.planning.facts import data_facts
from anchor_jax.planning.plan import Plan, make_plan, target_mesh
from anchor_jax.planning.report import print_plans
from anchor_jax.planning.targets import CHIPS, Target, parse_target
from anchor_jax.reporting.terminal import print_lines
from anchor_jax.runtime import topologies
from anchor_jax.runtime.atomic_files import check_does_not_exist, write_new_file
from anchor_jax.training.choices import choose

CONFIG = app.define_config()
TARGET = flags.DEFINE_multi_string(
    "target", [], f"Chips: a TPU slice such as v5e:4x4, or GPUs such as h200:8. Known: {', '.join(CHIPS)}. Repeatable."
)
JSON = app.define_path("json", None, "File to write the plan to.", what="a new file")
ADVICE = flags.DEFINE_bool("advice", True, "Try changes where the config does not fit.")
NUM_EXAMPLES = flags.DEFINE_integer("num_examples", 0, "Size of a training set that is not known.", lower_bound=0)
NUM_CLASSES = flags.DEFINE_integer("num_classes", 0, "Number of its classes.", lower_bound=0)
IMAGE_SHAPE = flags.DEFINE_list("image_shape", [], "Shape of its images: H,W,C.")

USAGE = app.Usage(
    description=f"{app.COMMANDS['plan']}\n"
    "The compilers of the chips run on the CPU, in seconds to minutes, without data or weights.\n"
    "All times are estimates, not measurements.",
    synopsis="--config=CONFIG --target=TARGET [--target=TARGET ...] [--config.KEY=VALUE ...] [flags]",
    groups={
        "Config": (CONFIG,),
        "Plan": (TARGET, ADVICE, JSON),
        "Training set, if it is not known": (NUM_EXAMPLES, NUM_CLASSES, IMAGE_SHAPE),
    },
    notes={"Configs": ", ".join(config_flag.names())},
    examples={
        "a slice of 16 TPUs, and a host with 8 GPUs": "--config imagenet_vit_b16 --target v5e:4x4 --target h200:8",
        "a smaller batch": "--config cifar10 --target v5e:2x2 --config.training.batch_size=64",
    },
)


def main() -> None:
    """Plan the config on all targets, print tables, and write the file."""
    if not TARGET.value:
        exit_with_error(USAGE_STATUS, "--target must have a value, such as v5e:4x4 or h200:8")
    if JSON.value:
        check_does_not_exist(JSON.value)
    config, targets = app.load_config(CONFIG), list(map(parse_target, TARGET.value))
    validate(config)
    config = choose(with_plain_values(config)).config
    facts = data_facts(
        config.data,
        num_examples=NUM_EXAMPLES.value,
        num_classes=NUM_CLASSES.value,
        image_shape=tuple(app.integer("image_shape", side) for side in IMAGE_SHAPE.value),
    )
    topologies.prepare()
    for target in targets:  # errors come before anything is compiled
        target_mesh(config, facts, target)
    plans, trials = [], {}
    for target in targets:
        say = partial(_say, target)
        plan = make_plan(config, facts, target, say)
        plans.append(plan)
        if ADVICE.value and not plan.memory.fits:
            trials[target.name] = find_fitting(plan, partial(make_plan, facts=facts, target=target, progress=say), say)
    print_plans(plans, trials)
    if JSON.value:
        _write(JSON.value, plans, trials)


def _say(target: Target, message: str) -> None:
    print_lines(f"{target.name}: {message}")


def _write(file: Path, plans: list[Plan], trials: dict[str, list[Trial]]) -> None:
    content = [plan_content(plan, trials.get(plan.target.name, [])) for plan in plans]
    with write_new_file(file) as new:
        new.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    print_lines(f"wrote {file}")


def run() -> None:
    """Run the command line."""
    app.run(main, usage=USAGE)
