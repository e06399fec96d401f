"""Time the startup of a new process: imports, the first training step, the first prediction.

    python -m benchmarks.speed.startup --json startup.json
    python -m benchmarks.speed.startup --config configs/cifar10.py --config.model.options.width=64

Each sample starts a process and measures the time until its result. "cold" processes start with an empty compilation
cache, "warm" ones with that of the previous process.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from anchor_jax.cli import app
from anchor_jax.config import Config
from anchor_jax.core.errors import UserError
from anchor_jax.data import load_train
from anchor_jax.training.loop import train
from benchmarks.report import Result, report
from benchmarks.timing import time_interleaved

ROOT = Path(__file__).parents[2]
IMPORTS = {
    "python alone": "pass",
    "import jax": "import jax",
    "import anchor_jax": "import anchor_jax",
    "import anchor_jax.training.loop": "import anchor_jax.training.loop",
}
FIRST_PREDICTION = """
import sys, numpy, anchor_jax
predictor = anchor_jax.load_predictor(sys.argv[1])
predictor(numpy.zeros((1, *predictor.image_shape), numpy.uint8), num_references=1)
print("done")
"""

CONFIG = config_flags.DEFINE_config_file("config", str(ROOT / "configs/digits.py"), "Config of the training run.")
JSON = app.define_path("json", None, "Result file.", what="a new file")
CASES = flags.DEFINE_multi_enum("cases", ["imports", "step", "answer"], ["imports", "step", "answer"], "What to time.")
SAMPLES = flags.DEFINE_integer("samples", 5, "Processes per number.", lower_bound=1)


def main() -> None:
    """Time all cases, interleaved, so that each warm process follows the cold one that compiled for it."""
    config = app.load_config(CONFIG)
    # one training step, logged immediately
    one_step = {
        "training.total_epochs": config.training.batch_size / len(load_train(config.data, config.seed)[0].images),
        "logging.every_steps": 1,
    }
    config.update_from_flattened_dict(one_step)
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        if "imports" in CASES.value:
            runs |= {
                case: partial(_run_until, "done", "-c", f"{code}\nprint('done')") for case, code in IMPORTS.items()
            }
        if "step" in CASES.value:
            runs |= _cold_and_warm("first training step", partial(_first_step, _arguments(one_step)), Path(folder))
        if "answer" in CASES.value:
            train(config, Path(folder) / "run")
            runs |= _cold_and_warm("first answer", partial(_first_prediction, Path(folder) / "run"), Path(folder))
        seconds = time_interleaved(runs, SAMPLES.value)
    results = [Result(case, _implementation(case), "time", "s", samples) for case, samples in seconds.items()]
    report(f"Startup, {_model(config)}", {"model": _model(config)}, results, JSON.value)


def _cold_and_warm(case: str, run: Callable[[Path], None], folder: Path) -> dict[str, Callable[[], None]]:
    cache = folder / f"cache of the {case}"

    def cold():
        shutil.rmtree(cache, ignore_errors=True)
        run(cache)

    return {f"{case}, cold": cold, f"{case}, warm": partial(run, cache)}


def _first_step(arguments: list[str], cache: Path) -> None:
    with tempfile.TemporaryDirectory() as workdir:
        _run_until("step 1/", str(ROOT / "train.py"), f"--workdir={workdir}", *arguments, **_cache_variables(cache))


def _first_prediction(workdir: Path, cache: Path) -> None:
    _run_until("done", "-c", FIRST_PREDICTION, str(workdir), **_cache_variables(cache))


def _cache_variables(cache: Path) -> dict[str, str]:
    """Return environment variables that store every compiled program in a folder."""
    return {
        "JAX_ENABLE_COMPILATION_CACHE": "1",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def _run_until(prefix: str, *arguments: str, **environment: str) -> None:
    """Run Python in a new process until it prints a line that starts with `prefix`, then kill it."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        line = "no output"
        for line in process.stdout or ():
            if line.startswith(prefix):
                process.kill()
                return
    raise UserError(f"a timed process failed: {line}")


def _arguments(one_step) -> list[str]:
    """Return the config flags of this command, for train.py."""
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    given = [argument for argument in sys.argv[1:] if argument.lstrip("-").startswith("config.")]
    return [f"--config={file}", *given, *(f"--config.{key}={value}" for key, value in one_step.items())]


def _implementation(case):
    return {"python alone": "python", "import jax": "jax"}.get(case, "anchor_jax")


def _model(config: Config) -> str:
    return " ".join([config.model.name, *(f"{key} {value}" for key, value in config.model.options.items())])


if __name__ == "__main__":
    app.run(main)
