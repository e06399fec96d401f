"""The card of a model on the Hugging Face Hub: `README.md`, with metadata that the Hub reads."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from anchor_jax.core.errors import UserError
from anchor_jax.data.loading import name_of
from anchor_jax.evaluation import storage
from anchor_jax.evaluation.presentation import format_num_references
from anchor_jax.evaluation.results import parse_storage_name
from anchor_jax.metrics import specs
from anchor_jax.runs.hub import import_hub
from anchor_jax.runs.record import Run
from anchor_jax.runtime import templates
from anchor_jax.runtime.paths import printable

CARD = "README.md"
_DATASETS = {  # TFDS -> Hub
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "imagenet2012": "ILSVRC/imagenet-1k",
    "mnist": "ylecun/mnist",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
}
_MAX_ROWS = 12  # of the table of a suite; all numbers are in metrics.json
_OTHER_DATA = ("shift", "probe")  # suites whose scores are not of the test set
_LEFT_OUT = ("mean_logits_", "scaled_", "seconds_", "num_examples", "temperature")  # beginnings of metrics

Metrics = Mapping[str, Mapping[str, Any]]  # suite -> number of references -> flat name -> value


class _Measured(NamedTuple):
    """The numbers of one suite for the card."""

    suite: str
    by_references: dict[int, dict[str, float]]  # K -> flat name -> value

    @property
    def names(self) -> list[str]:
        """The flat names in the table, means before what they are over."""
        names = dict.fromkeys(name for values in self.by_references.values() for name in values)
        return sorted(names, key=lambda name: name.count("/"))[:_MAX_ROWS]


def read_metrics(run: Run, step: int) -> Metrics:
    """Return the `metrics.json` of a checkpoint; empty if it is not evaluated.

    Raises:
      UserError: the file is corrupt.
    """
    for folder in storage.checkpoint_folders(run.workdir).get(step, {}).values():
        file = folder / storage.METRICS
        try:
            return json.loads(file.read_bytes())
        except OSError:
            continue
        except ValueError as error:
            raise UserError(f"'{file}' is corrupt ({error}); evaluate the run again") from error
    return {}


def model_card(run: Run, step: int, name: str, license_name: str, metrics: Metrics) -> str:
    """Return the card of a model: metadata of the Hub in YAML, then Markdown.

    Args:
      run: the run.
      step: step of its checkpoint.
      name: "ORG/NAME".
      license_name: identifier of a license on the Hub, such as "apache-2.0".
      metrics: content of `metrics.json`, see `read_metrics`.

    Raises:
      UserError: huggingface_hub is not installed.
    """
    measured = [*_measured(metrics)]
    is_anchored, config = run.config.anchoring.enabled, run.config
    masked = {"batch": "batches", "group": "groups", "example": "images"}[config.anchoring.mask_per]
    values = {
        "name": name,
        "is_anchored": is_anchored,
        "num_references": 0 if run.references is None else len(run.references),
        "shape": f"[B, {', '.join(map(str, run.image_shape))}]",
        "facts": {
            "network": config.model.name + "".join(f", {key} {value}" for key, value in config.model.options.items()),
            "training set": f"{name_of(config.data)}, {run.data.partition(',')[0]}",
            "classes": len(run.label_names),
            "epochs": f"{config.training.total_epochs:g}, checkpoint of step {step}",
            "masked references": f"{config.anchoring.mask_prob:g} of the {masked}" if is_anchored else "none",
        },
        "suites": [(of.suite, _rows(of)) for of in measured],
    }
    body = templates.render("reporting", "model_card.md.j2", values)
    front_matter = printable(_front_matter(run, name, license_name, measured))
    return f"---\n{front_matter}---\n\n{body}"


def _is_of_test_set(name: str) -> bool:
    parsed = parse_storage_name(name)
    return parsed.dataset is None and parsed.suite not in _OTHER_DATA


def _front_matter(run: Run, name: str, license_name: str, measured: list[_Measured]) -> str:
    hub, dataset, hub_dataset = import_hub(), name_of(run.config.data), _DATASETS.get(name_of(run.config.data))
    results = [
        hub.EvalResult(
            task_type="image-classification",
            dataset_type=hub_dataset or dataset,
            dataset_name=dataset if of.suite == "clean" else f"{dataset}, {of.suite}",
            dataset_split=run.config.data.test_split or None,
            metric_type=metric,
            metric_name=specs.get(metric).title + (f", {format_num_references(num)}" if num else ""),
            metric_value=value,
        )
        for of in measured
        if _is_of_test_set(of.suite)
        for num, values in of.by_references.items()
        for metric, value in values.items()
        if "/" not in metric
    ]
    data = hub.ModelCardData(
        license=license_name,
        library_name="anchor-jax",
        pipeline_tag="image-classification",
        tags=["jax", "flax", "uncertainty", *(["anchoring"] if run.config.anchoring.enabled else []), "safetensors"],
        datasets=[hub_dataset] if hub_dataset else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=name.partition("/")[2],
        eval_results=results or None,
    )
    return data.to_yaml() + "\n"


def _measured(metrics: Metrics) -> Iterator[_Measured]:
    for suite, content in metrics.items():
        numbers = {
            int(num): {name: value for name, value in values.items() if _is_shown(name, value)}
            for num, values in content.items()
            if num.isdigit()  # files of earlier versions also hold the name of the data
        }
        yield _Measured(suite, numbers)


def _is_shown(name: str, value: Any) -> bool:
    return isinstance(value, int | float) and not name.rpartition("/")[2].startswith(_LEFT_OUT)


def _rows(of: _Measured) -> list[list[str]]:
    """Return the table of a suite: headings, then one line per metric, with a column per number of references."""
    table = [["", *map(format_num_references, of.by_references)]]
    for name in of.names:
        *where, metric = name.split("/")
        spec = specs.get(metric)
        cells = [spec.text(values[name]) if name in values else "" for values in of.by_references.values()]
        table.append([" ".join([*where, spec.heading]), *cells])
    return table
