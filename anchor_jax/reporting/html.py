"""Parts of HTML pages: the templates, tables, and figures embedded as data."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup, escape
from PIL import Image

from anchor_jax.evaluation.presentation import Column, Figure, Table
from anchor_jax.reporting import plots
from anchor_jax.reporting.style import DPI
from anchor_jax.runtime import templates
from anchor_jax.runtime.paths import printable

_DASH = "–"


class EmbeddedFigure(NamedTuple):
    """A figure whose image is part of the page."""

    title: str
    caption: str
    source: str  # data URL
    width: int  # CSS pixels
    height: int


def render(template: str, **values: Any) -> str:
    """Return a page.

    Args:
      template: name of the file.
      **values: of the variables in the template; text is escaped.
    """
    return templates.render("reporting", template, values, escape=True)


def draw_figures(figures: Iterable[Figure], folder: Path, prefix: str = "") -> list[EmbeddedFigure]:
    """Draw figures as PNG files in a folder, and return them with the content of the files."""
    embedded = []
    for figure in figures:
        file = folder / f"{prefix}{figure.name}.png"
        plots.save(figure.plot, file)
        content = file.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            width, height = (round(pixels * 96 / DPI) for pixels in image.size)
        source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        embedded.append(EmbeddedFigure(figure.title, figure.caption, source, width, height))
    return embedded


def table_html(table: Table) -> Markup:
    """Return a table of scores, with the best value of each column in bold and intervals below the values."""
    cells = {column.spec.headed(column.title): _cells(column, table.mark_best) for column in table.columns}
    shown = range(len(table.rows)) if table.shown is None else table.shown
    return rows_html({table.rows[place]: {heading: of[place] for heading, of in cells.items()} for place in shown})


def _cells(column: Column, mark_best: bool) -> list[str]:
    """Return the values as text, the best one in bold unless all are equal or neither direction is better."""
    present, better = {value for value in column.values if value is not None}, column.spec.higher_is_better
    is_marked = mark_best and better is not None and len(present) > 1
    best = (max if better else min)(present) if is_marked else None
    texts = [_DASH if value is None else column.spec.text(value) for value in column.values]
    marked = [value is not None and value == best for value in column.values]
    texts = [Markup("<b>{}</b>").format(text) if mark else text for text, mark in zip(texts, marked, strict=True)]
    intervals = [None if each is None else "–".join(map(column.spec.text, each)) for each in intervals_of(column)]
    below = Markup('{}<span class="interval">{}</span>')
    return [below.format(text, of) if of else text for text, of in zip(texts, intervals, strict=True)]


def intervals_of(column: Column) -> Sequence[tuple[float, float] | None]:
    """Return the 95% interval of each value, None where there is none."""
    return column.intervals() if column.intervals else [None] * len(column.values)


def rows_html(rows: Mapping[Any, Mapping[str, str | int]]) -> Markup:
    """Return an HTML table without its empty columns.

    Args:
      rows: name of a row, or names of its group and of itself -> column -> text, which is escaped.
    """
    names = dict.fromkeys(name for row in rows.values() for name, text in row.items() if text != "")
    cells = [[row.get(name, "") for name in names] for row in rows.values()]
    index, columns = (list(map(_as_text, of)) for of in (rows, names))
    frame = pd.DataFrame(cells, index=pd.Index(index), columns=columns, dtype=object)
    styler = frame.style
    styler.format(escape).format_index(escape="html", axis=0).format_index(escape="html", axis=1)
    head, body = styler.to_html(exclude_styles=True).split("<tbody>")
    head = head.replace("<th >&nbsp;</th>", "<td></td>").replace("<th ", '<th scope="col" ')
    return Markup(head + "<tbody>" + body.replace("<th ", '<th scope="row" '))


def _as_text(name: Any) -> Any:
    """Return the name of a row or column, or several, as pandas takes them, see `printable`."""
    return tuple(map(_as_text, name)) if isinstance(name, tuple) else printable(name)
