"""The report of a campaign, in Markdown: what ran, and the numbers of each step."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from anchor_jax.planning.report import number
from anchor_jax.planning.targets import CHIPS
from anchor_jax.runtime.atomic_files import atomic_write
from benchmarks.campaign.chips import BANDWIDTH, product_case

_UNITS = {"FLOP/s": (1e-12, "TFLOP/s"), "byte/s": (1e-9, "GB/s"), "s": (1e6, "µs")}


def write(file: Path, content: Mapping[str, Any], out: Path) -> None:
    """Write the report.

    Args:
      file: to write.
      content: of the summary in JSON.
      out: folder of the campaign, which holds the tables of studies.
    """
    with atomic_write(file) as new:
        new.write_text("\n".join(_lines(content, out)), encoding="utf-8")


def _lines(content: Mapping[str, Any], out: Path) -> list[str]:
    environment, settings, steps = content["environment"], content["settings"], content["steps"]
    lines = [f"# Campaign on {settings['devices']} × {settings['device_kind']}", ""]
    if settings["tiny"]:
        lines += ["**The tiny form: every step ran, but its numbers measure nothing.**", ""]
    versions = ", ".join(f"{name} {environment[name] or 'not installed'}" for name in ("jax", "jaxlib", "torch"))
    lines += [
        f"`{environment['command']}`, on {environment['cpu']} with {environment['cpu_cores']} cores, "
        f"Python {environment['python']}, {versions}.",
        "",
        *_table(("step", "outcome", "seconds", "limit"), map(_outcome, steps)),
    ]
    for step in steps:
        lines += ["", f"## {step['title']}", ""]
        lines += [_sentence(step["note"]), ""] if step["note"] else []
        lines += [_sentence(f"{step['status']}: {step['message']}"), ""] if step["message"] else []
        lines += _section(step, out)
    return [*lines, ""]


def _outcome(step: Mapping[str, Any]) -> tuple[str, str, str, str]:
    status = step["status"] if step["status"] == "done" else f"**{step['status']}**"
    return step["title"], status, f"{step['seconds']:.0f}", f"{step['limit']:.0f}"


def _section(step: Mapping[str, Any], out: Path) -> list[str]:
    """Return the lines of a step; a malformed result file becomes a message, so that the report has the other steps."""
    if step["name"].startswith("study"):
        return _study(step["name"], out)
    if not step["results"]:
        return ["No results."]
    write_section = _SECTIONS.get(step["name"], _throughput)
    try:
        return write_section(step["results"])
    except (KeyError, TypeError, IndexError, ValueError) as error:
        return [f"The result file cannot be read ({type(error).__name__}: {error})."]


def _machine(results: Mapping[str, Any]) -> list[str]:
    facts = results["environment"]
    chip = CHIPS.get(facts["chip"] or "")
    sheet = {} if chip is None else {BANDWIDTH: chip.bandwidth}
    if chip is not None:
        sheet |= {product_case(dtype): chip.peak(dtype) for dtype in ("bfloat16", "float32")}
    rows = []
    for result in results["results"]:
        factor, unit = _UNITS[result["unit"]]
        value = max(result["samples"]) if result["unit"] != "s" else result["median"]
        stated = sheet.get(result["case"])
        beside = f"{number(factor * stated)} ({value / stated:.0%})" if stated else ""
        rows.append((result["case"], number(factor * value), unit, beside))
    memory = facts["memory_bytes"]
    lines = _table(("", "best of 10 (an empty program: median)", "", "data sheet"), rows)
    return [*lines, "", f"Memory of a device for programs: {memory / 2**30:.1f} GiB."] if memory else lines


def _losses(results: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            result["case"],
            "yes" if result["agrees"] else f"**NO, from step {result['first_wrong_step']}**",
            f"{result['first_difference']:.1e} of {result['first_tolerance']:g}",
            f"{result['largest_difference']:.1e} of {result['tolerance']:g}",
            f"{result['losses'][0]:.4f} → {result['losses'][-1]:.4f}",
        )
        for result in results["results"]
    ]
    return _table(("case", "agrees with the CPU", "first step", "20 steps", "loss"), rows)


def _throughput(results: Mapping[str, Any]) -> list[str]:
    shown = [result for result in results["results"] if result["metric"].endswith("_per_second")]
    ours = {result["case"]: result["median"] for result in shown if result["implementation"] == "anchor_jax"}
    rows = []
    for result in shown:
        least, most = min(result["samples"]), max(result["samples"])
        ratio = f"{result['median'] / ours[result['case']]:.2f}" if result["case"] in ours else ""
        values = (number(result["median"]), f"{number(least)} to {number(most)}", ratio)
        rows.append((result["case"], result["implementation"], result["unit"], *values))
    return _table(("case", "implementation", "", "median", "range", "over ours"), rows) if rows else ["No results."]


def _estimates(results: Mapping[str, Any]) -> list[str]:
    rows = []
    for result in results["results"]:
        if "error" in result:
            rows.append((f"`{result['name']}`", "measured", "", "", f"not measured: {result['error']}"))
            continue
        measured = result["measured"]
        gib = f"{measured['memory_bytes'] / 2**30:.2f}"
        rows.append((f"`{result['name']}`", "measured", number(1e3 * measured["seconds_per_step"]), gib, ""))
        for estimate in result["estimates"]:
            seconds, memory = estimate.get("seconds_per_step"), estimate.get("memory_bytes")
            rows.append(
                (
                    "",
                    estimate["by"],
                    number(1e3 * seconds) if seconds else "",
                    f"{memory / 2**30:.2f}" if memory else "",
                    f"{estimate['time_over_measured']:.2f}" if seconds else estimate.get("error", ""),
                )
            )
    lines = _table(("step", "", "ms", "GiB", "of the measured time"), rows)
    if results["environment"]["chip"] is None:
        kind = results["environment"]["device_kind"]
        lines += ["", f"The planner knows no chip '{kind}': there is only the roofline at the measured peaks."]
    return lines


def _trace(results: Mapping[str, Any]) -> list[str]:
    total = results["seconds_per_step"]
    lines = [
        f"`{results['experiment']}`, {results['steps']} steps of {number(1e3 * total)} ms. The two largest losses:",
        "",
    ]
    for position, loss in enumerate(results["losses"], 1):
        lines.append(f"{position}. **{loss['what']}**: {number(1e3 * loss['lost'])} ms, {loss['lost'] / total:.0%}.")
    rows = [
        (cost["what"], number(1e3 * cost["seconds"]), f"{cost['seconds'] / total:.0%}", number(1e3 * cost["lost"]))
        for cost in results["costliest"]
    ]
    lines += ["", f"Lost means: {results['lost_means']}. On a CPU, threads that work at the same time add up.", ""]
    return [*lines, *_table(("what", "ms per step", "of the step", "ms lost"), rows)]


def _study(name: str, out: Path) -> list[str]:
    """Return the tables of a study, without the rows that have no measured value."""
    lines = []
    for table in sorted(out.glob(f"studies/{_STUDY_FOLDERS[name]}/*.md")):
        headings, rule, *rows = table.read_text(encoding="utf-8").splitlines()
        num_values = headings.count("|") - 1 - len(_STUDY_LABELS)
        measured = [row for row in rows if row.count("not measured") < num_values]
        lines += [f"`{table.relative_to(out)}`: {len(measured)} of {len(rows)} rows are measured.", ""]
        lines += [headings, rule, *measured, ""] if measured else []
    return lines[:-1] or ["No results."]


_STUDY_LABELS = ("", "seeds", "paper", "over standard")  # columns of a study's table that have no value of their own
# step -> folder of the size of its runs
_STUDY_FOLDERS = {"study": "tiny", "study_fast": "fast", "study_paper": "full"}
_SECTIONS: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "machine": _machine,
    "losses": _losses,
    "estimates": _estimates,
    "trace": _trace,
}


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]
