"""Reports: an evaluation of one run, and comparisons of several."""

from anchor_jax.reporting.pictures import TrainingPictures
from anchor_jax.reporting.report import Reporter, write_report

__all__ = ["Reporter", "TrainingPictures", "write_report"]
