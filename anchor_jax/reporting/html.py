"""Parts of HTML pages: the templates, tables, and figures embedded as data."""

import base64
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from PIL import Image

from anchor_jax.evaluation.presentation import Column, Figure, Table
from anchor_jax.reporting import plots
from anchor_jax.reporting.style import DPI

_CSS_DPI = 96
_DASH = "–"


class EmbeddedFigure(NamedTuple):
    """A figure whose image is part of the page."""

    title: str
    caption: str
    source: str  # data URL
    width: int  # CSS pixels
    height: int


def render(template: str, *folders: str, **values: Any) -> str:
    """Return a page.

    Args:
      template: name of the file.
      *folders: of the package, where templates are searched before `reporting/`.
      **values: of the variables in the template; text is escaped.
    """
    loaders = [jinja2.PackageLoader("anchor_jax", folder) for folder in (*folders, "reporting")]
    options = {"autoescape": True, "undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    return jinja2.Environment(loader=jinja2.ChoiceLoader(loaders), **options).get_template(template).render(values)


def draw_figures(figures: Iterable[Figure], folder: Path, prefix: str = "") -> list[EmbeddedFigure]:
    """Draw figures as PNG files in a folder, and return them with the content of the files."""
    embedded = []
    for figure in figures:
        file = folder / f"{prefix}{figure.name}.png"
        plots.save(figure.plot, file)
        embedded.append(_embed(file, figure))
    return embedded


def _embed(file: Path, figure: Figure) -> EmbeddedFigure:
    with Image.open(file) as image:
        width, height = (round(pixels * _CSS_DPI / DPI) for pixels in image.size)
    source = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
    return EmbeddedFigure(figure.title, figure.caption, source, width, height)


def table_html(table: Table) -> str:
    """Return a table of scores, with the best value of each column in bold."""
    headings = [column.spec.headed(column.title) for column in table.columns]
    frame = pd.DataFrame(
        {heading: column.values for heading, column in zip(headings, table.columns, strict=True)},
        index=list(table.rows),
        dtype="float64",
    )
    formats = [partial(_cell, column, _best(column) if table.mark_best else None) for column in table.columns]
    return frame_html(frame, dict(zip(headings, formats, strict=True)), missing=_DASH)


def frame_html(
    frame: pd.DataFrame, formats: dict[str, Callable[[Any], str]] | Callable[[Any], str], missing: str = ""
) -> str:
    """Return a data frame as an HTML table; rows and columns must have unique names.

    Args:
      frame: its names are escaped.
      formats: value -> HTML, for all columns or for each.
      missing: text for missing values.
    """
    styler = frame.style
    styler.format(formats, na_rep=missing)
    for axis in (0, 1):
        styler.format_index(escape="html", axis=axis)
    return styler.to_html(exclude_styles=True)


def _best(column: Column) -> float | None:
    """Return the best value; None if all are equal, or if neither direction is better."""
    present = [value for value in column.values if value is not None]
    if column.spec.higher_is_better is None or len(present) < 2 or min(present) == max(present):
        return None
    return max(present) if column.spec.higher_is_better else min(present)


def _cell(column: Column, best: float | None, value: float) -> str:
    text = column.spec.text(value)
    return f"<b>{text}</b>" if value == best else text
