"""Kill a run at many points, restart it each time, and check that it ends like an uninterrupted run.

    python -m faults.kill --kills 25 --json kill.json

A run is trained and evaluated without interruption. The same run is then killed repeatedly: during startup, steps,
evaluation, the writing or deletion of a checkpoint, eval.py, and the writing of a file. After each kill the same
command is restarted. A third run uses the cache that is left, unless runs are in a bucket. The exit status is 0 if all
runs agree: checkpoints bit for bit, metrics.jsonl, TensorBoard, the results of eval.py, and the names of all files.
With --bucket, the runs are in a bucket, such as that of an emulator.
"""

import collections
import itertools
import json
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from anchor_jax.cli import app
from anchor_jax.core.errors import UserError
from anchor_jax.runtime.atomic_files import is_incomplete
from benchmarks.environment import environment
from benchmarks.report import write_json
from faults.kill.compare_runs import differences
from faults.kill.in_bucket import BucketAttempt, BucketRun, without_deletion
from faults.kill.kill_points import Attempt, KillPoint, kill_points, phase, run_and_kill
from faults.kill.target_run import TargetRun, write_digits

JSON = app.define_path("json", None, "Result file.", what="a new file")
KILLS = flags.DEFINE_integer("kills", 25, "Number of kills; about a quarter of them are in eval.py.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the order and the times of the kills.")
MODEL = flags.DEFINE_enum("model", "resnet18", ["resnet18", "mlp"], "Model to train.")
AIMS = flags.DEFINE_list("aims", [], "Comma-separated kill points, such as checkpoint,eval results; all by default.")
BUCKET = flags.DEFINE_string("bucket", "", "Address of the runs, such as gs://bucket/kill; by default a new folder.")

MAX_ATTEMPTS = 10  # per kill


def main() -> None:
    """Run without interruption, with kills, and once more with the cache that is left; compare."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_digits(folder / "digits")
        clean, killed, after = (_target(folder, name) for name in ("clean", "killed", "after"))
        seconds = {name: _finish_timed(clean, name) for name in clean.commands}
        kills = _kill_repeatedly(killed, _eval_steps(clean), seconds)
        others = {"killed run": killed}
        if not BUCKET.value:  # the cache is on this machine in any case
            for name in after.commands:
                after.finish(name)
            others["run after it"] = after
        first = _folder(clean)
        verdicts = {
            f"{kind}: {name}": found
            for kind, other in others.items()
            for name, found in differences(first, _folder(other)).items()
        }
        verdicts["cache"] = _incomplete_cache_files(killed.cache)
    _report(kills, verdicts)


def _target(folder: Path, name: str) -> TargetRun:
    shortest = 1 if BUCKET.value else 2  # epochs; a bucket is slower than a disk
    arguments = folder, name, folder / "cache", MODEL.value, shortest + KILLS.value // 4
    return BucketRun(*arguments, address=BUCKET.value) if BUCKET.value else TargetRun(*arguments)


def _folder(target: TargetRun) -> Path:
    """Return the folder of a run, or of a copy of a run in a bucket."""
    return target.copy() if isinstance(target, BucketRun) else target.workdir


def _finish_timed(target: TargetRun, name: str) -> float:
    """Run a command to its end and return its seconds."""
    start = time.monotonic()
    target.finish(name)
    print(f"{name}, uninterrupted: {time.monotonic() - start:.1f} s", flush=True)
    return time.monotonic() - start


def _eval_steps(target: TargetRun) -> set[int]:
    """Return the steps at which a finished run has evaluated."""
    lines = map(json.loads, (target.workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"] for line in lines if "test/accuracy" in line}


def _kill_repeatedly(target: TargetRun, eval_steps: set[int], seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Kill each command repeatedly, then run it to its end; return a description of each kill."""
    rng = np.random.default_rng(SEED.value)
    num_of_eval = KILLS.value // 4
    kills = []
    for command, num in (("train.py", KILLS.value - num_of_eval), ("eval.py", num_of_eval)):
        points = kill_points(command, seconds[command])
        points = without_deletion(points) if BUCKET.value else points
        for kill_point in itertools.islice(_shuffled_rounds(points, rng), num):
            kills.append(_kill_once(target, eval_steps, kill_point, rng))
            print(f"kill {len(kills)} of {KILLS.value}: {kills[-1]}", flush=True)
        target.finish(command)
    return kills


def _shuffled_rounds(points: dict[str, KillPoint], rng: np.random.Generator) -> Iterator[tuple[str, KillPoint]]:
    """Yield the kill points of --aims forever, in rounds of random order."""
    names = [name for name in points if name in AIMS.value or not AIMS.value]
    while True:
        yield from ((names[i], points[names[i]]) for i in rng.permutation(len(names)))


def _kill_once(target, eval_steps, named_point, rng) -> dict[str, Any]:
    """Kill a command once; restart one that ends before its kill point.

    Raises:
      UserError: the command fails, or always ends before its kill point.
    """
    name, kill_point = named_point
    command = kill_point.command
    for _ in range(MAX_ATTEMPTS):
        attempt = (BucketAttempt if BUCKET.value else Attempt)(target, eval_steps)
        code, seconds = run_and_kill(attempt, kill_point, rng)
        if code < 0:
            return {
                "aim": name,
                "found": phase(attempt, command),
                "file_cut_off": attempt.is_writing_file(),
                "signal": signal.Signals(-code).name,
                "seconds": round(seconds, 3),
                "newest_checkpoint": attempt.newest_checkpoint(),
                "warnings": [line for line in target.output().splitlines() if line.startswith("warning: ")],
            }
        if code > 0:
            raise UserError(f"{command} failed with {code} before the kill ({name}): {target.output()[-1000:]}")
    raise UserError(f"{command} ended {MAX_ATTEMPTS} times before it could be killed ({name}); use another --seed")


def _incomplete_cache_files(cache: Path) -> list[str]:
    """Return the names of temporary and empty files in the cache."""
    return [file.name for file in cache.rglob("*") if is_incomplete(file) or file.stat().st_size == 0]


def _report(kills: list[dict[str, Any]], verdicts: dict[str, list[str]]) -> None:
    """Print the verdicts, and write the result file if --json is given.

    Raises:
      UserError: the runs differ.
    """
    counts = collections.Counter(kill["found"] for kill in kills)
    for name, count in sorted(counts.items()):
        print(f"{count:4} x {name}")
    for name, found in verdicts.items():
        print(f"{name}: {'; '.join(found) or 'the same'}")
    if JSON.value:
        content = {
            "environment": environment(),
            "seed": SEED.value,
            "model": MODEL.value,
            "kills_by_moment": counts,
            "verdicts": {name: found or "the same" for name, found in verdicts.items()},
            "kills": kills,
        }
        write_json(JSON.value, content)
    failed = [name for name, found in verdicts.items() if found]
    if failed:
        raise UserError(f"after {len(kills)} kills the runs differ in: {', '.join(failed)}")


if __name__ == "__main__":
    app.run(main)
