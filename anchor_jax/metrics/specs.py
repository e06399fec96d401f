"""Facts about each metric: title, unit, direction and number format.

Tables, figures, reports and comparisons read these facts; no other module repeats them.
"""

import dataclasses

_MINUS, _NO_BREAK_SPACE = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"


@dataclasses.dataclass(frozen=True)
class MetricSpec:
    """How one metric is named, compared and printed.

    Attributes:
      name: as in `metrics.json`, such as "smooth_ece".
      title: as in tables and figures, such as "smoothed ECE".
      unit: "%" for a fraction, which is stored in [0, 1] and printed in percent; else "nats", "s" or "".
      higher_is_better: None if neither direction is better.
      format: format specification of the printed number, without a sign.
    """

    name: str
    title: str
    unit: str = ""
    higher_is_better: bool | None = None
    format: str = ".4f"

    @property
    def is_fraction(self) -> bool:
        """Whether the metric is a fraction that is printed in percent."""
        return self.unit == "%"

    @property
    def heading(self) -> str:
        """Return the title with a percent sign for fractions and an arrow towards the better values.

        >>> get("accuracy").heading.replace(_NO_BREAK_SPACE, " ")
        'accuracy % ↑'
        """
        return self.headed(self.title)

    def headed(self, title: str) -> str:
        """Return another title with this metric's percent sign and arrow."""
        arrow = {True: "↑", False: "↓", None: ""}[self.higher_is_better]
        signs = _NO_BREAK_SPACE.join(filter(None, ["%" * self.is_fraction, arrow]))
        return f"{title} {signs}".rstrip()

    def text(self, value: float, *, signed: bool = False) -> str:
        """Return a value as it is printed, without its unit.

        Args:
          value: as stored; fractions in [0, 1].
          signed: print "+" before positive numbers, for differences.

        >>> get("accuracy").text(0.9512), get("nll").text(-0.25, signed=True)
        ('95.12', '−0.2500')
        """
        number = 100 * value if self.is_fraction else value
        return format(number, ("+" if signed else "") + self.format).replace("-", _MINUS)


def _percent(name: str, title: str, higher_is_better: bool | None) -> MetricSpec:
    return MetricSpec(name, title, "%", higher_is_better, ".2f")


SPECS = {
    spec.name: spec
    for spec in (
        _percent("accuracy", "accuracy", True),
        _percent("top5_accuracy", "top-5", True),
        MetricSpec("nll", "NLL", "nats", False),
        MetricSpec("brier", "Brier", "", False),
        _percent("ece", "ECE", False),
        _percent("rms_ece", "RMS ECE", False),
        _percent("adaptive_ece", "adaptive ECE", False),
        _percent("smooth_ece", "smoothed ECE", False),
        _percent("aurc", "AURC", False),
        MetricSpec("entropy", "entropy", "nats"),
        MetricSpec("mutual_information", "mutual information", "nats"),
        _percent("agreement", "agreement", None),
        MetricSpec("temperature", "temperature", format=".3f"),
        _percent("mce", "mCE", False),
        _percent("auroc", "AUROC", True),
        _percent("aupr_in", "AUPR in", True),
        _percent("aupr_out", "AUPR out", True),
        _percent("fpr95", "FPR at 95% TPR", False),
        _percent("precision", "precision", True),
        _percent("confidence", "mean confidence", None),
        _percent("share", "of the true class", None),
        _percent("coverage", "coverage", None),
        _percent("hard_coverage", "coverage, least certain fifth", None),
        MetricSpec("set_size", "set size", "", False, ".3f"),
        _percent("singletons", "sets of one class", True),
        _percent("empty_sets", "empty sets", None),
        MetricSpec("seconds_per_1000", "seconds per 1,000", "s", False, ".3g"),
        MetricSpec("num_examples", "examples", format=",.0f"),
    )
}


def get(name: str) -> MetricSpec:
    """Return the facts about a metric; an unknown metric has a title, but no unit and no direction.

    >>> get("ece").title, get("ece").higher_is_better
    ('ECE', False)
    >>> get("rain_rate").title
    'rain rate'
    """
    return SPECS.get(name) or MetricSpec(name, name.replace("_", " "), format=".4g")
