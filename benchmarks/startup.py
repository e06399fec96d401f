"""Seconds from nothing to a first result: imports, the first training step, the first answer of a predictor.

    python benchmarks/startup.py --json startup.json
    python benchmarks/startup.py --config configs/cifar10.py --config.model.options.width=64

Every sample is a process of its own, timed from its start until it has the result. A cold one finds no compiled
programs, a warm one those of the process before.
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
from timing import Result, interleaved, report

from anchor_jax.cli import app
from anchor_jax.config import Config
from anchor_jax.core.errors import UserError
from anchor_jax.data import load_train
from anchor_jax.training.loop import train

ROOT = Path(__file__).parents[1]
IMPORTS = {
    "python alone": "pass",
    "import jax": "import jax",
    "import anchor_jax": "import anchor_jax",
    "import anchor_jax.training.loop": "import anchor_jax.training.loop",
}
FIRST_ANSWER = """
import sys, numpy, anchor_jax
predictor = anchor_jax.load_predictor(sys.argv[1])
predictor(numpy.zeros((1, *predictor.image_shape), numpy.uint8), num_references=1)
print("done")
"""

CONFIG = config_flags.DEFINE_config_file("config", str(ROOT / "configs/digits.py"), "What train.py is started with.")
JSON = flags.DEFINE_string("json", None, "The result file.")
CASES = flags.DEFINE_multi_enum("cases", ["imports", "step", "answer"], ["imports", "step", "answer"], "What is timed.")
SAMPLES = flags.DEFINE_integer("samples", 5, "Processes for each number.", lower_bound=1)


def main() -> None:
    """Time everything in turn: every warm process finds what the cold one before it has compiled."""
    config = app.load_config(CONFIG)
    # of one step, which train.py tells of at once
    one_step = {
        "training.total_epochs": config.training.batch_size / len(load_train(config.data, config.seed)[0].images),
        "logging.every_steps": 1,
    }
    config.update_from_flattened_dict(one_step)
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        if "imports" in CASES.value:
            runs |= {case: partial(_until, "done", "-c", f"{it}\nprint('done')") for case, it in IMPORTS.items()}
        if "step" in CASES.value:
            runs |= _cold_and_warm("first training step", partial(_first_step, _arguments(one_step)), Path(folder))
        if "answer" in CASES.value:
            train(config, Path(folder) / "run")
            runs |= _cold_and_warm("first answer", partial(_first_answer, Path(folder) / "run"), Path(folder))
        seconds = interleaved(runs, SAMPLES.value)
    results = [Result(case, _implementation(case), "time", "s", samples) for case, samples in seconds.items()]
    report(f"From nothing to a first result, {_model(config)}", {"model": _model(config)}, results, JSON.value)


def _cold_and_warm(case: str, run: Callable[[Path], None], folder: Path) -> dict[str, Callable[[], None]]:
    compiled = folder / f"programs of the {case}"

    def cold():
        shutil.rmtree(compiled, ignore_errors=True)
        run(compiled)

    return {f"{case}, cold": cold, f"{case}, warm": partial(run, compiled)}


def _first_step(arguments: list[str], compiled: Path) -> None:
    with tempfile.TemporaryDirectory() as workdir:
        _until("step 1/", str(ROOT / "train.py"), f"--workdir={workdir}", *arguments, **_keeping(compiled))


def _first_answer(run: Path, compiled: Path) -> None:
    _until("done", "-c", FIRST_ANSWER, str(run), **_keeping(compiled))


def _keeping(compiled: Path) -> dict[str, str]:
    """The environment in which every compiled program is kept in a folder."""
    return {
        "JAX_ENABLE_COMPILATION_CACHE": "1",
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def _until(answer: str, *arguments: str, **environment: str) -> None:
    """Run Python in a process of its own until it prints a line that begins with `answer`."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        line = "nothing was said"
        for line in process.stdout or ():
            if line.startswith(answer):
                process.kill()
                return
    raise UserError(f"a process that was to be timed failed: {line}")


def _arguments(one_step) -> list[str]:
    """The config's flags as they were given here, for train.py."""
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    given = [argument for argument in sys.argv[1:] if argument.lstrip("-").startswith("config.")]
    return [f"--config={file}", *given, *(f"--config.{key}={value}" for key, value in one_step.items())]


def _implementation(case):
    return {"python alone": "python", "import jax": "jax"}.get(case, "anchor_jax")


def _model(config: Config) -> str:
    return " ".join([config.model.name, *(f"{key} {value}" for key, value in config.model.options.items())])


if __name__ == "__main__":
    app.run(main)
