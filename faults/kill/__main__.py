"""Kill a run at many moments, start it again each time, and look whether it ends as if nothing had happened.

    python -m faults.kill --json kill.json

A run is trained and evaluated once undisturbed. Then the same run is killed, in turn, at moments of every kind: while
it starts, steps, evaluates, writes a checkpoint or deletes one, while eval.py works, and amid the write of a file.
After each kill the same command is given again. In the end both must be the same: arrays of all checkpoints bit by bit,
lines of metrics.jsonl, what TensorBoard shows, results of eval.py, names of all files. What the kills have left in the
cache must serve one more run, which is to be the same, too. The exit status is 0 only if all of that holds.
"""

import collections
import itertools
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from anchor_jax.cli import app
from anchor_jax.core.errors import UserError
from anchor_jax.runtime.atomic_files import atomic_write, is_incomplete
from benchmarks.environment import environment
from faults.kill.compare_runs import differences
from faults.kill.kill_points import Aim, Attempt, aims, found, strike
from faults.kill.target_run import Victim, write_digits

JSON = flags.DEFINE_string("json", None, "The result file.")
KILLS = flags.DEFINE_integer("kills", 25, "How many; about a quarter of them hit eval.py.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Of the order of the kills and their moments.")
MODEL = flags.DEFINE_enum("model", "resnet18", ["resnet18", "mlp"], "What is trained.")
AIMS = flags.DEFINE_list("aims", [], "Kinds of moments, of training first; all in turn by default.")

TRIES = 10  # of one kill


def main() -> None:
    """Train and evaluate undisturbed, then disturbed, then with the cache that is left; compare."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_digits(folder / "digits")
        clean, hurt, after = (
            Victim(folder, name, folder / "cache", MODEL.value, epochs=2 + KILLS.value // 4)
            for name in ("clean", "hurt", "after")
        )
        seconds = {name: _undisturbed(clean, name) for name in clean.commands}
        kills = _kill(hurt, _evaluated(clean), seconds)
        for name in after.commands:
            after.finish(name)
        verdicts = {f"killed run: {name}": told for name, told in differences(clean.workdir, hurt.workdir).items()}
        verdicts |= {f"run after it: {name}": told for name, told in differences(clean.workdir, after.workdir).items()}
        verdicts["cache"] = _debris(hurt.cache)
    _report(kills, verdicts)


def _undisturbed(victim: Victim, name: str) -> float:
    """Let a command come to its end, and give its seconds."""
    started = time.monotonic()
    victim.finish(name)
    print(f"{name}, undisturbed: {time.monotonic() - started:.1f} s", flush=True)
    return time.monotonic() - started


def _evaluated(victim: Victim) -> set[int]:
    """The steps at which a run evaluates."""
    lines = map(json.loads, (victim.workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"] for line in lines if "test/accuracy" in line}


def _kill(victim: Victim, evaluated: set[int], seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Kill both commands so many times in all, and let each come to its end after that."""
    rng = np.random.default_rng(SEED.value)
    num_of_eval = KILLS.value // 4
    kills = []
    for name, num in (("train.py", KILLS.value - num_of_eval), ("eval.py", num_of_eval)):
        for aim in itertools.islice(_in_turn(aims(name, seconds[name]), rng), num):
            kills.append(_one_kill(victim, evaluated, aim, rng))
            print(f"kill {len(kills)} of {KILLS.value}: {kills[-1]}", flush=True)
        victim.finish(name)
    return kills


def _in_turn(named: dict[str, Aim], rng: np.random.Generator) -> Iterator[tuple[str, Aim]]:
    """Those that were asked for, in another order each round, for ever."""
    asked = [name for name in named if name in AIMS.value or not AIMS.value]
    while True:
        yield from ((asked[place], named[asked[place]]) for place in rng.permutation(len(asked)))


def _one_kill(victim, evaluated, named, rng) -> dict[str, Any]:
    """Kill a command once; one that ends before that is started anew.

    Raises:
      UserError: it failed, or nothing is left for it to do.
    """
    name, aim = named
    for _ in range(TRIES):
        attempt = Attempt(victim, evaluated)
        code, seconds = strike(attempt, aim, rng)
        if code < 0:
            return {
                "aim": name,
                "found": found(attempt, aim.command),
                "file_cut_off": attempt.is_replacing(),
                "signal": signal.Signals(-code).name,
                "seconds": round(seconds, 3),
                "newest_checkpoint": attempt.newest_checkpoint(),
                "warnings": [line for line in victim.said().splitlines() if line.startswith("warning: ")],
            }
        if code > 0:
            raise UserError(f"{aim.command} failed with {code}, started for a kill ({name}): {victim.said()[-1000:]}")
    raise UserError(f"{aim.command} came to its end {TRIES} times before it could be killed ({name}); try another seed")


def _debris(cache: Path) -> list[str]:
    """Files of the cache that no process finished."""
    return [file.name for file in cache.rglob("*") if is_incomplete(file) or file.stat().st_size == 0]


def _report(kills: list[dict[str, Any]], verdicts: dict[str, list[str]]) -> None:
    """Print what was found, and write it where that is asked for.

    Raises:
      UserError: the run did not survive.
    """
    counts = collections.Counter(kill["found"] for kill in kills)
    for moment, count in sorted(counts.items()):
        print(f"{count:4} x {moment}")
    for name, told in verdicts.items():
        print(f"{name}: {'; '.join(told) or 'the same'}")
    if JSON.value:
        content = {
            "environment": environment() | {"command": " ".join(["python -m faults.kill", *sys.argv[1:]])},
            "seed": SEED.value,
            "model": MODEL.value,
            "kills_by_moment": counts,
            "verdicts": {name: told or "the same" for name, told in verdicts.items()},
            "kills": kills,
        }
        with atomic_write(Path(JSON.value)) as file:
            file.write_text(json.dumps(content, indent=1) + "\n")
    failed = [name for name, told in verdicts.items() if told]
    if failed:
        raise UserError(f"the run did not survive {len(kills)} kills; different: {', '.join(failed)}")


if __name__ == "__main__":
    app.run(main)
