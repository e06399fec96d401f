"""Plan all experiments on TPUs and GPUs, one JSON file per experiment and target; nothing is measured.

    python -m benchmarks.speed.plans --out docs/results/plan --targets v5e:4x4,v6e:4x4
    python -m benchmarks.speed.plans --out docs/results/plan --targets h200:8
    python -m benchmarks.speed.plans --out docs/results/plan --targets h200:1 --configs cifar10 --standard

The compilers come with the extras plan-tpu and plan-gpu. Plans that are there already are kept; small images come
first. A compilation takes up to minutes, and gigabytes of memory. With --standard, the same networks without anchoring.
"""

import importlib
import sys
from functools import partial
from typing import Any

from absl import flags

from anchor_jax.cli import app, config_flag
from anchor_jax.config import Config, validate
from anchor_jax.core.errors import UserError, unknown
from anchor_jax.planning.advice import find_fitting
from anchor_jax.planning.content import plan_content
from anchor_jax.planning.facts import data_facts
from anchor_jax.planning.plan import make_plan
from anchor_jax.planning.targets import Target, parse_target
from anchor_jax.runtime import topologies
from anchor_jax.training.choices import choose
from benchmarks.environment import environment
from benchmarks.report import write_json
from benchmarks.speed.plan_texts import ROOT, plan_file

OUT = app.define_path("out", None, "Folder of the files.", required=True)
CONFIGS = flags.DEFINE_list("configs", config_flag.names(), "Experiments, comma-separated; all by default.")
TARGETS = flags.DEFINE_list("targets", None, "Targets, comma-separated, such as v5e:4x4 or h200:8.", required=True)
STANDARD = flags.DEFINE_bool("standard", False, "Plan the standard networks: config.anchoring.enabled=False.")


def main() -> None:
    """Plan what is not planned yet."""
    targets = [parse_target(name) for name in TARGETS.value]
    topologies.prepare()
    for name, config in _experiments():
        for target in targets:
            file = plan_file(OUT.value, name, target.name, is_standard=STANDARD.value)
            if file.exists():
                continue
            print(f"{name} on {target.name}", flush=True)
            try:
                content = _planned(config, target)
            except UserError as error:
                print(f"  {error}", flush=True)
                continue
            facts = {"experiment": name, "anchored": config.anchoring.enabled}
            write_json(file, {"environment": environment(), **facts, **content})


def _experiments() -> list[tuple[str, Config]]:
    """Return the experiments, those with the smallest images and models first."""
    sys.path.append(str(ROOT))  # configs/ is not a package
    found = []
    for name in CONFIGS.value:
        if name not in config_flag.names():
            raise unknown("config", name, config_flag.names())
        config = importlib.import_module(f"configs.{name}").get_config()
        config.anchoring.enabled &= not STANDARD.value
        validate(config)
        found.append((name, choose(config).config))
    return sorted(found, key=lambda one: (one[1].data.image_size, one[1].augmentation.policy, one[0]))


def _planned(config: Config, target: Target) -> dict[str, Any]:
    plan = partial(make_plan, facts=data_facts(config.data), target=target)
    first = plan(config)
    trials = [] if first.memory.fits else find_fitting(first, plan)
    content = plan_content(first, trials)
    del content["config"]  # it is in configs/
    return content


if __name__ == "__main__":
    app.run(main)
