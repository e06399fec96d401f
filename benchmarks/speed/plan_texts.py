"""Write what the committed plans say into the docstrings of the experiments and into docs/imagenet.md.

    python -m benchmarks.speed.plan_texts

Experiments without a plan say so. `benchmarks.speed.plans` makes the plans.
"""

import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anchor_jax.cli import app, config_flag
from anchor_jax.planning.advice import described
from anchor_jax.planning.report import number

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/results/plan"
PAGE = ROOT / "docs/imagenet.md"
TARGETS = ("v5e:4x4", "v6e:4x4", "h200:8")
EXPERIMENTS = [name for name in config_flag.names() if name.startswith(("imagenet_", "finetune"))]

_WIDTH = 120
_TABLE = re.compile(r"(<!-- plans -->\n).*?(<!-- end of plans -->)", re.DOTALL)


def main() -> None:
    """Rewrite the docstrings and the table."""
    files = {}
    for experiment in EXPERIMENTS:
        file = ROOT / f"configs/{experiment}.py"
        files[file] = with_time(file.read_text(), time_text(plans_of(experiment)))
    files[PAGE] = _TABLE.sub(rf"\g<1>{table()}\n\g<2>", PAGE.read_text())
    for file, text in files.items():
        if text != file.read_text():
            file.write_text(text)
            print(f"wrote {file.relative_to(ROOT)}")


def plans_of(experiment: str) -> list[dict[str, Any]]:
    """Return the committed plans of an experiment on `TARGETS`."""
    return [read_plan(FOLDER, experiment, name) for name in TARGETS if plan_file(FOLDER, experiment, name).exists()]


def plan_file(folder: Path, experiment: str, target: str, *, is_standard: bool = False) -> Path:
    """Return the file of the plan of an experiment on a target; `is_standard`: of the same network without anchoring."""
    return folder / f"{experiment}{'.standard' if is_standard else ''}.{target.replace(':', '-')}.json"


def read_plan(folder: Path, experiment: str, target: str) -> dict[str, Any]:
    """Return the committed plan of an experiment on a target."""
    return json.loads(plan_file(folder, experiment, target).read_text())


def time_text(plans: Sequence[dict[str, Any]]) -> str:
    """Return the sentences on time and memory of a docstring."""
    if not plans:
        return "Time: not yet planned (docs/planning.md)."
    parts = [f"on {plan['target']}, {_cost(plan)}" for plan in plans]
    return f"Time: estimates by compilers, not measured (docs/planning.md): {'; '.join(parts)}."


def _cost(plan: dict[str, Any]) -> str:
    """Return the chip-hours and the memory of a plan, with the change that makes it fit where it does not."""
    if plan["fits"]:
        return f"{number(plan['chip_hours'], 2)} chip-hours and {_memory(plan)}"
    fitting = next((trial for trial in plan["trials"] if trial["fits"]), None)
    if fitting is None:
        return f"{_memory(plan)} (does not fit)"
    return f"{number(fitting['chip_hours'], 2)} chip-hours and {_memory(fitting)} with {described(fitting['changes'])}"


def _memory(plan: dict[str, Any]) -> str:
    memory = plan["memory_bytes"]
    return f"{number(memory['total'] / 2**30, 2)} of {number(memory['available'] / 2**30, 2)} GiB"


def with_time(source: str, text: str) -> str:
    """Return the source of a config whose docstring says `text`; the paragraph ends with the result."""
    paragraph = re.search(r'^Time: .*?(Result: .*?)(?="""|\n\n)', source, flags=re.DOTALL | re.MULTILINE)
    if not paragraph:
        raise ValueError("the docstring has no paragraph 'Time: ... Result: ...'")
    joined = " ".join(f"{text} {paragraph[1]}".split())
    filled = textwrap.fill(joined, _WIDTH, break_on_hyphens=False, break_long_words=False)
    end = "\n" if paragraph[0].endswith("\n") else ""
    return source[: paragraph.start()] + filled + end + source[paragraph.end() :]


def table() -> str:
    """Return the table of the plans of all experiments, in Markdown."""
    lines = [
        "| config | target | fits | GiB per chip | images/s | of the peak | chip-hours |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for experiment in EXPERIMENTS:
        for plan in plans_of(experiment):
            fitting = next((trial for trial in plan["trials"] if trial["fits"]), None)
            lines.append(_row(experiment, plan, ""))
            if fitting:
                lines.append(_row(experiment, fitting, described(fitting["changes"])))
    return "\n".join(lines)


def _row(experiment: str, plan: dict[str, Any], changes: str) -> str:
    name = f"`{experiment}.py`" + (f" `{changes}`" if changes else "")
    rate, peak, hours = plan["images_per_second"], plan["fraction_of_peak"], plan["chip_hours"]
    cells = [
        name,
        plan["target"],
        "yes" if plan["fits"] else "no",
        _memory(plan).removesuffix(" GiB"),
        f"{rate:,.0f}" if rate else "",
        f"{100 * peak:.0f}%" if peak else "",
        number(hours) if hours else "",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    app.run(main)
