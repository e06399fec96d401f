"""Write what the committed plans say into the docstrings of the experiments, docs/imagenet.md and docs/performance.md.

    python -m benchmarks.speed.plan_texts

What has no plan says so. `benchmarks.speed.plans` makes the plans.
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
TARGETS = ("v5e:4x4", "v6e:4x4", "h200:8")
EXPERIMENTS = [name for name in config_flag.names() if name.startswith(("imagenet_", "finetune"))]
ONE_CHIP = ("v5e:1x1", "v6e:1x1", "h200:1")
# the networks of the paper and of its project page, with their targets
PAPER = {
    "ResNet-18, CIFAR-10": ("cifar10", ONE_CHIP),
    "WRN-40-2, CIFAR-100": ("cifar100_wrn40_2", ONE_CHIP),
    "RegNetY-800MF": ("imagenet_regnet_y_800mf", TARGETS),
    "DeiT-S/16": ("imagenet_deit_s16", TARGETS),
    "ViT-B/16": ("imagenet_vit_b16", TARGETS),
    "SwinV2-T": ("imagenet_swin_v2_t", TARGETS),
    "SwinV2-S": ("imagenet_swin_v2_s", TARGETS),
    "SwinV2-B": ("imagenet_swin_v2_b", TARGETS),
}

_WIDTH = 120
_TABLE = re.compile(r"(<!-- plans -->\n).*?(<!-- end of plans -->)", re.DOTALL)


def main() -> None:
    """Rewrite the docstrings and the table."""
    files = {}
    for experiment in EXPERIMENTS:
        file = ROOT / f"configs/{experiment}.py"
        files[file] = with_time(file.read_text(), time_text(plans_of(experiment)))
    for page, table in pages().items():
        files[page] = _TABLE.sub(rf"\g<1>{table}\n\g<2>", page.read_text())
    for file, text in files.items():
        if text != file.read_text():
            file.write_text(text)
            print(f"wrote {file.relative_to(ROOT)}")


def pages() -> dict[Path, str]:
    """Return the table of each page that has one."""
    return {ROOT / "docs/imagenet.md": imagenet_table(), ROOT / "docs/performance.md": paper_table()}


def plans_of(experiment: str) -> list[dict[str, Any]]:
    """Return the committed plans of an experiment on `TARGETS`."""
    plans = (read_plan(plan_file(FOLDER, experiment, name)) for name in TARGETS)
    return [plan for plan in plans if plan]


def plan_file(folder: Path, experiment: str, target: str, *, is_standard: bool = False) -> Path:
    """Return the file of the plan of an experiment on a target; `is_standard`: of its network without anchoring."""
    return folder / f"{experiment}{'.standard' if is_standard else ''}.{target.replace(':', '-')}.json"


def read_plan(file: Path) -> dict[str, Any] | None:
    """Return a committed plan; None if there is none."""
    return json.loads(file.read_text()) if file.exists() else None


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
    fitting = _fitting(plan)
    if fitting is None:
        return f"{_memory(plan)} (does not fit)"
    return f"{number(fitting['chip_hours'], 2)} chip-hours and {_memory(fitting)} with {described(fitting['changes'])}"


def _fitting(plan: dict[str, Any]) -> dict[str, Any] | None:
    """Return the trial that fits."""
    return next((trial for trial in plan["trials"] if trial["fits"]), None)


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


def imagenet_table() -> str:
    """Return the table of the plans of `EXPERIMENTS`, in Markdown."""
    lines = [
        "| config | target | fits | GiB per chip | images/s | of the peak | chip-hours |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for experiment in EXPERIMENTS:
        for plan in plans_of(experiment):
            lines.append(_row(experiment, plan, ""))
            if fitting := _fitting(plan):
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


def paper_table() -> str:
    """Return the table of the networks of the paper, in Markdown: a step of each, over a standard one's."""
    lines = [
        "| network | target | batch per chip | step | of the peak | copies | GiB per chip | over standard | memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    missing = []
    for network, (experiment, targets) in PAPER.items():
        plans = {target: read_plan(plan_file(FOLDER, experiment, target)) for target in targets}
        lines += [
            f"| {network} | {target} | {' | '.join(_step_cells(experiment, target, plan))} |"
            for target, plan in plans.items()
            if plan
        ]
        if without := [target for target, plan in plans.items() if not plan]:
            missing.append(f"{network} on {' and '.join(without)}")
    if missing:
        lines += ["", *textwrap.wrap(f"Not planned yet: {'; '.join(missing)}.", _WIDTH, break_on_hyphens=False)]
    return "\n".join(lines)


def _step_cells(experiment: str, target: str, plan: dict[str, Any]) -> list[str]:
    per_chip = f"{plan['batch_size'] // plan['num_devices']:,}"
    memory = _memory(plan).removesuffix(" GiB") + ("" if plan["fits"] else ": does not fit")
    if not plan["step"]:
        return [per_chip, "", "", "", memory, "", ""]
    copies = plan["step"]["layout_copy_seconds"] / plan["step"]["computation_seconds"]
    cells = [per_chip, _work_text(plan), f"{100 * plan['fraction_of_peak']:.0f}%", f"{100 * copies:.1f}%", memory]
    standard = read_plan(plan_file(FOLDER, experiment, target, is_standard=True))
    if standard is None or not standard["step"]:
        return [*cells, "not planned", ""]
    of_memory = plan["memory_bytes"]["total"] / standard["memory_bytes"]["total"]
    return [*cells, f"{_work(plan) / _work(standard):.3f}", f"{of_memory:.3f}"]


def _work(plan: dict[str, Any]) -> int:
    """Return the cycles of a step on a TPU, the bytes that are moved on a GPU."""
    return plan["step"]["cycles"] or plan["step"]["bytes_moved"]


def _work_text(plan: dict[str, Any]) -> str:
    if cycles := plan["step"]["cycles"]:
        return f"{number(cycles / 1e6)} M cycles"
    return f"{number(1e3 * plan['step']['computation_seconds'])} ms, {number(plan['step']['bytes_moved'] / 1e9)} GB"


if __name__ == "__main__":
    app.run(main)
