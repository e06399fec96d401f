"""A campaign: its steps one after another, each with a time limit, and a summary after each."""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from anchor_jax.core.errors import UserError
from benchmarks.campaign import running, summary
from benchmarks.campaign.files import read, write_current
from benchmarks.campaign.steps import Settings, Step, all_steps, limit, result_file

SUMMARY, REPORT = "campaign.json", "report.md"
SKIPPED = "skipped"

_PROBE_SECONDS = 120.0
_LEAST_SECONDS = 1.0  # a step with less time is skipped
_RESERVE = 1.0  # seconds for the summary
_CLOSING = 20.0  # seconds for the closing command, at most a third of the limit

Records = dict[str, dict[str, Any]]  # outcome of each step, by name


def probe(*, may_be_cpu: bool) -> dict[str, Any]:
    """Return the result of `benchmarks.campaign.probe`: it runs in another process, so that this one takes no device.

    Args:
      may_be_cpu: whether to accept a machine without an accelerator.

    Raises:
      UserError: JAX finds no device, or no accelerator.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file, log = Path(scratch) / "probe.json", Path(scratch) / "log.txt"
        ended = running.run(["-m", "benchmarks.campaign.probe", f"--json={file}"], log, _PROBE_SECONDS, grace=1.0)
        found = read(file)
    if ended.status != running.DONE or found is None:
        raise UserError(f"JAX finds no device: {ended.message or ended.status}")
    if found["platform"] == "cpu" and not may_be_cpu:
        raise UserError(
            "JAX finds no accelerator, only CPUs; install jax[cuda13] or jax[tpu], or measure the CPU with --cpu"
        )
    found["environment"]["command"] = " ".join(["python -m benchmarks.campaign", *sys.argv[1:]])
    return found


def earlier_records(settings: Settings) -> Records:
    """Return the records of an earlier campaign in the same folder; none if the folder is new.

    Raises:
      UserError: the folder holds something else, or a campaign with other settings.
    """
    out = settings.out
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} is a file; name a folder")
    if not out.exists() or not any(file for file in out.iterdir() if file.name != "lock"):
        return {}
    content = read(out / SUMMARY)
    if content is None or "settings" not in content or "steps" not in content:
        raise UserError(f"--out={out} holds something else than a campaign; name another folder")
    expected = settings.fixed()
    for key, value in content["settings"].items():
        if expected.get(key) != value:
            raise UserError(
                f"--out={out} holds another campaign: {key} was {value!r} and is {expected.get(key)!r}; name another "
                "folder"
            )
    return {step["name"]: {key: step[key] for key in step if key != "results"} for step in content["steps"]}


def run_steps(settings: Settings, records: Records, ends: float, stop_signal: Callable[[], int] = int) -> Records:
    """Run the steps that are not done, and write the summary after each.

    Args:
      settings: of the campaign.
      records: of an earlier campaign in the same folder.
      ends: when the campaign must be over, on the clock `time.monotonic`.
      stop_signal: returns the number of the signal that this process received, or 0.

    Returns:
      The record of each step.
    """
    ends, steps = ends - _RESERVE, all_steps(settings)
    records = {step.name: records[step.name] for step in steps if step.name in records}
    write(settings, records)  # marks the folder as that of a campaign
    waiting = [step for step in steps if not _is_done(step, records, settings.out)]
    for position, step in enumerate(steps, 1):
        number = f"[{position}/{len(steps)}] {step.name}"
        if step not in waiting:
            print(f"{number}: done before, {_time(ends)} left", flush=True)
            continue
        waiting.remove(step)
        seconds = limit(step, waiting, ends - time.monotonic())
        if stop_signal() or seconds < _LEAST_SECONDS:
            reason = "the campaign was interrupted" if stop_signal() else "no time was left"
            records.setdefault(step.name, _record(step, SKIPPED, 0.0, 0.0, reason))
            print(f"{number}: skipped, {_time(ends)} left", flush=True)
            continue
        print(f"{number}: at most {seconds:.0f} s, {_time(ends)} left", flush=True)
        records[step.name] = record = _run(step, settings.out, seconds, stop_signal)
        message = f" ({record['message']})" if record["message"] else ""
        print(f"{number}: {record['status']} after {record['seconds']:.0f} s{message}, {_time(ends)} left", flush=True)
        write(settings, records)
    write(settings, records)
    return records


def _time(ends: float) -> str:
    left = max(ends - time.monotonic(), 0.0)
    return f"{left:.0f} s" if left < 90 else f"{left / 60:.1f} min"


def _is_done(step: Step, records: Mapping[str, Any], out: Path) -> bool:
    has_results = not step.has_file or read(result_file(out, step.name)) is not None
    return records.get(step.name, {}).get("status") == running.DONE and has_results


def _run(step: Step, out: Path, seconds: float, stop_signal: Callable[[], int]) -> dict[str, Any]:
    """Run a step within its limit; return its record."""
    started = time.monotonic()
    log = out / "logs" / f"{step.name}.txt"
    closing = min(_CLOSING, seconds / 3) if step.closing else 0.0
    grace = min(step.grace, (seconds - closing) / 3)
    ended = running.run(step.command, log, seconds - closing, grace, stop_signal, step.xla_flags)
    if step.closing and ended.status != running.DONE and not stop_signal():
        running.run(step.closing, log, max(seconds - (time.monotonic() - started), closing), grace=0.0)
    return _record(step, ended.status, time.monotonic() - started, seconds, ended.message)


def _record(step: Step, status: str, seconds: float, limit: float, message: str) -> dict[str, Any]:
    prefix = f"XLA_FLAGS={step.xla_flags} " if step.xla_flags else ""
    return {
        "name": step.name,
        "title": step.title,
        "status": status,
        "message": message,
        "note": step.note,
        "seconds": round(seconds, 1),
        "limit": round(limit, 1),
        "command": f"{prefix}python {' '.join(step.command)}",
    }


def write(settings: Settings, records: Records) -> None:
    """Write the summary as JSON, with the results of all steps, and as Markdown."""
    known: Sequence[dict[str, Any]] = [
        {**records[step.name], "results": read(result_file(settings.out, step.name))}
        for step in all_steps(settings)
        if step.name in records
    ]
    content = {
        "environment": settings.machine["environment"],
        "settings": settings.fixed(),
        "minutes": settings.minutes,
        "steps": known,
    }
    write_current(settings.out / SUMMARY, content)
    summary.write(settings.out / REPORT, content, settings.out)
