"""The steps of a campaign in their order: what each runs, and its share of the time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

OURS = "anchor_jax"
STRONGEST = {"gpu": "pytorch-graph", "cpu": "pytorch-compiled"}  # platform -> the fastest form of PyTorch
RELEASED = ("released-loader", "released-nchw", "released-channels-last")

# XLA captures neither convolutions nor loops in CUDA graphs by default: a training step becomes some forty graphs
ONE_CUDA_GRAPH = "--xla_gpu_enable_command_buffer=+CONVOLUTION,+CUDNN,+WHILE,+CONDITIONAL"

_LONG_GRACE = 20.0
_MOST = 4.0  # limit of a step in a longer campaign, as a multiple of its share of nine minutes


class Settings(NamedTuple):
    """Settings of a campaign; all but the time must stay the same when it resumes.

    Attributes:
      out: folder of the results.
      minutes: time limit of the whole campaign.
      official: a clone of the released code, or None.
      is_tiny: whether to run the smallest form of every step.
      machine: content of the probe: "platform", "device_kind", "devices", and the environment.
    """

    out: Path
    minutes: float
    official: Path | None
    is_tiny: bool
    machine: dict[str, Any]

    @property
    def platform(self) -> str:
        """Return "cpu", "gpu" or "tpu"."""
        return self.machine["platform"]

    @property
    def has_pytorch(self) -> bool:
        """Return whether PyTorch is installed and runs on this platform."""
        return bool(self.machine["environment"]["torch"]) and self.platform in STRONGEST

    def fixed(self) -> dict[str, Any]:
        """Return the settings that may not change when the campaign resumes."""
        return {
            "tiny": self.is_tiny,
            "official": str(self.official) if self.official else None,
            "platform": self.platform,
            "device_kind": self.machine["device_kind"],
            "devices": self.machine["devices"],
        }


class Step(NamedTuple):
    """A step.

    Attributes:
      name: of its files and in messages.
      title: in the report.
      seconds: its share of nine minutes; time that a step leaves goes to those after it.
      command: arguments of Python.
      closing: arguments of Python for a command that follows one that failed or was stopped, in reserved time; or ().
      has_file: whether the command writes a result file.
      grace: seconds before its limit at which it receives SIGTERM, to save or report what it has.
      is_last: whether the step may take all the time that is left to the last steps.
      note: for the report, such as which implementations are missing.
      xla_flags: added to `$XLA_FLAGS`.
    """

    name: str
    title: str
    seconds: float
    command: Sequence[str]
    closing: Sequence[str] = ()
    has_file: bool = True
    grace: float = 1.0
    is_last: bool = False
    note: str = ""
    xla_flags: str = ""

    @property
    def most_seconds(self) -> float:
        """Return the seconds that the step may take at most."""
        return float("inf") if self.is_last else _MOST * self.seconds


def all_steps(settings: Settings) -> list[Step]:
    """Return the steps of a campaign, in their order."""
    tiny = ["--tiny"] if settings.is_tiny else []
    machine = f"--machine={result_file(settings.out, 'machine')}"
    trace_folder = settings.out / "trace"
    missing = _missing_note(settings)
    steps = [
        Step("machine", "The machine and its peaks", 60, [*_module("campaign.machine"), *tiny]),
        Step("losses", "20 training steps against the CPU", 90, [*_module("campaign.losses"), *tiny]),
        *(step._replace(note=step.note or missing, grace=_LONG_GRACE) for step in _throughput(settings)),
        Step("estimates", "Estimates and measurements", 70, [*_module("campaign.estimates"), machine, *tiny]),
        Step(
            "trace",
            "Where the time of a training step goes",
            50,
            [*_module("campaign.trace"), machine, f"--folder={trace_folder}", *tiny],
        ),
    ]
    with_files = [
        step._replace(command=[*step.command, f"--json={result_file(settings.out, step.name)}"]) for step in steps
    ]
    return [*with_files, *_studies(settings)]


def result_file(out: Path, name: str) -> Path:
    """Return the result file of a step."""
    return out / f"{name}.json"


def _module(name: str) -> list[str]:
    return ["-m", f"benchmarks.{name}"]


def _missing_note(settings: Settings) -> str:
    """Say which implementations are missing; "" if none is."""
    if not settings.has_pytorch:
        is_installed = settings.machine["environment"]["torch"]
        return f"PyTorch {'does not run on ' + settings.platform if is_installed else 'is not installed'}: ours alone"
    return "" if settings.official else "the released code was not given (--official): it is not timed"


def _throughput(settings: Settings) -> list[Step]:
    """Return the steps that time ours, PyTorch and the released code side by side."""
    train, inference = _module("speed.train"), [*_module("speed.inference"), "--measure=speed"]
    if settings.is_tiny:
        small = ["--batch_size=8", "--samples=1"]
        ours = ["--model=mlp", _implementations(settings)]  # PyTorch has only large networks
        names = _implementations(settings, "pytorch-eager")
        return [
            Step("train", "Training", 60, [*train, *small, *ours, "--steps=1", "--cases=masked"]),
            Step("inference", "K references", 60, [*inference, *small, names, "--width=4", "--num_references=2"]),
        ]
    strongest = STRONGEST.get(settings.platform, "")
    on_cpu = settings.platform == "cpu"
    samples, large = ("--samples=2", "--batch_size=32") if on_cpu else ("--samples=5", "--batch_size=512")
    few, all_names = _implementations(settings, strongest), [_implementations(settings, strongest, *RELEASED)]
    if settings.official and settings.has_pytorch:
        all_names.append(f"--official={settings.official}")
    train = [*train, samples, "--cases=masked"]
    inference = [*inference, samples, large, *all_names, "--num_references=1,10", "--memory_limit=64"]
    train_bfloat16 = [*train, "--dtype=bfloat16", large]
    return [
        Step("train", "Training, float32, batch 128", 120, [*train, *all_names]),
        Step("train_bfloat16", "Training, bfloat16", 90, [*train_bfloat16, few]),
        *([_train_graph([*train_bfloat16, _implementations(settings)])] if settings.platform == "gpu" else []),
        Step("inference", "K references", 60, inference),
    ]


def _train_graph(command: Sequence[str]) -> Step:
    title, note = "Training, bfloat16, all steps in one CUDA graph", f"Ours alone, with XLA_FLAGS={ONE_CUDA_GRAPH}"
    return Step("train_graph", title, 40, command, note=note, xla_flags=ONE_CUDA_GRAPH)


def _implementations(settings: Settings, *others: str) -> str:
    """Return the flag that names implementations: ours, and others where PyTorch runs."""
    missing = ("",) if settings.official else ("", *RELEASED)
    names = [name for name in others if settings.has_pytorch and name not in missing]
    return f"--implementations={','.join([OURS, *names])}"


def _studies(settings: Settings) -> list[Step]:
    """Return the studies: the fast recipe, then the paper's protocol. They resume from their folders."""
    out = f"--out={settings.out / 'studies'}"
    if settings.is_tiny:
        line = [*_module("campaign.study"), out]
        return [_study("study", "The smallest study", line, 60)]
    at_once = settings.machine["environment"]["cpu_cores"] if settings.platform == "cpu" else 1
    line = ["-m", "studies", out, f"--records={settings.out / 'studies/records'}", f"--at_once={at_once}"]
    return [
        _study("study_fast", "Studies: the fast recipe", [*line, "fast"], 50),
        _study("study_paper", "Studies: the paper's protocol", [*line, "main"], 30),
    ]


def _study(name: str, title: str, line: Sequence[str], seconds: float) -> Step:
    return Step(name, title, seconds, line, [*line, "--only_report"], has_file=False, grace=_LONG_GRACE, is_last=True)


def limit(step: Step, following: Sequence[Step], left: float) -> float:
    """Return the seconds that a step may take: its share of what is left.

    Args:
      step: the step.
      following: those still to be run after it.
      left: seconds.
    """
    share = step.seconds / (step.seconds + sum(other.seconds for other in following))
    return min(left * share, step.most_seconds)
