"""The results of single runs as JSON files that are committed, so that a study goes on without the folders of its runs.

A record holds the config of its run and all results, one score per line. A study whose size names a folder of records
is complete when they are; the folders of the runs are only needed to measure what is missing.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anchor_jax.core.errors import UserError
from anchor_jax.evaluation.results import Results, Score, SuiteResult, fields_of
from anchor_jax.runtime.atomic_files import atomic_write, write_texts


class Record(NamedTuple):
    """What is known of a run.

    Attributes:
      config: flat, the keys that define the run.
      training_seconds: without compilation; on a machine that may have done other work at the same time.
      results: by storage name of the suite and number of references, without arrays.
    """

    config: Mapping[str, Any]
    training_seconds: float
    results: Mapping[str, Results]


def load(file: Path) -> Record:
    """Read a record.

    Raises:
      UserError: the file is not a record.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        results: dict[str, dict[int, SuiteResult]] = {}
        for of in content["results"]:
            scores = tuple(Score(**score) for score in of["scores"])
            result = SuiteResult(of["suite"], of["num_references"], scores, {}, of["facts"], of["protocol"])
            results.setdefault(result.name, {})[result.num_references] = result
        return Record(content["config"], content["training_seconds"], results)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"'{file}' is not the record of a run ({error}); move it away") from error


def save(file: Path, record: Record) -> None:
    """Write a record; a file that holds other numbers moves away first."""
    content = {
        "run": file.stem,
        "config": record.config,
        "training_seconds": round(record.training_seconds),
        "results": [
            {
                "suite": result.suite,
                "protocol": result.protocol,
                "num_references": num,
                "facts": result.facts,
                "scores": [{"metric": of.metric, "value": of.value} | fields_of(of) for of in result.scores],
            }
            for name in sorted(record.results)
            for num, result in sorted(record.results[name].items())
        ],
    }
    text = _to_text(content) + "\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and not _holds(record, load(file)):
        write_texts({file: text})
    elif not file.exists() or file.read_text(encoding="utf-8") != text:
        with atomic_write(file) as new:
            new.write_text(text, encoding="utf-8")


def _holds(record: Record, earlier: Record) -> bool:
    """Return whether a record holds all results of an earlier one."""
    of_earlier = ((name, num, result) for name, by_num in earlier.results.items() for num, result in by_num.items())
    return record.config == earlier.config and all(
        num in record.results.get(name, {}) and record.results[name][num].scores == result.scores
        for name, num, result in of_earlier
    )


def merge(earlier: Mapping[str, Results], newer: Mapping[str, Results]) -> dict[str, Results]:
    """Return all results; of two for the same suite and number of references, the newer one."""
    names = [*earlier, *(name for name in newer if name not in earlier)]
    return {name: {**earlier.get(name, {}), **newer.get(name, {})} for name in names}


def _to_text(value: Any, indent: str = "") -> str:
    """Return JSON with one line for each object or list that holds no other."""
    inner = indent + " "
    if isinstance(value, Mapping) and any(map(_is_container, value.values())):
        items = [f"{json.dumps(str(key))}: {_to_text(item, inner)}" for key, item in value.items()]
        return f"{{\n{_joined(items, inner)}\n{indent}}}"
    if isinstance(value, Sequence) and not isinstance(value, str) and any(map(_is_container, value)):
        return f"[\n{_joined([_to_text(item, inner) for item in value], inner)}\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _joined(items: Sequence[str], indent: str) -> str:
    return ",\n".join(indent + item for item in items)


def _is_container(value: Any) -> bool:
    return bool(value) and isinstance(value, Mapping | Sequence) and not isinstance(value, str)
