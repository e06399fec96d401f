"""Style of all figures: colors, sizes, and the file that a figure is saved to.

Blue is right, known or good, and vermilion is wrong (colors of Okabe and Ito, 2008). The order of lines is also in
their lightness, so that nothing depends on hue alone. Names of classes and datasets are drawn as they are, except for
bytes that are not UTF-8, which are escaped because matplotlib cannot draw them.
"""

import contextlib
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter
from PIL import Image

from anchor_jax.runtime.atomic_files import atomic_write
from anchor_jax.runtime.paths import printable

DPI = 150
FULL, HALF = 9.6, 4.7  # inches, widths for a page
INK, GREY, PALE = "#22262b", "#868c94", "#e3e6ea"
RIGHT, WRONG = "#0072b2", "#d55e00"
CATEGORIES = (RIGHT, WRONG, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
DASHES = ("-", "--", ":")

_STYLE = Path(__file__).with_name("anchor_jax.mplstyle")


@contextlib.contextmanager
def new_figure(
    path: Path, width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Iterator[Figure]:
    """Yield a figure in the style of the reports, and save it when the block ends.

    Args:
      path: of the PNG, which has 256 colors: a third of the size.
      width: in inches.
      height: in inches.
      layout: layout engine of matplotlib.
    """
    with matplotlib.rc_context(fname=_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # names in any script
        figure = Figure(figsize=(width, height), dpi=DPI, layout=layout)
        yield figure
        for text in figure.findobj(Text):
            text.set_text(printable(text.get_text()))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    with atomic_write(path) as file:
        image.quantize(256, Image.Quantize.MEDIANCUT).save(file, dpi=(DPI, DPI))


def shades(num: int) -> list[tuple[float, float, float, float]]:
    """Return colors of ordered lines, from pale to dark."""
    return [matplotlib.colormaps["YlGnBu"](place) for place in np.linspace(0.9 - 0.5 * (num > 1), 0.9, num)]


def category(index: int, skip: int = 0) -> tuple[str, str]:
    """Return color and dash of one of several unordered lines; the first `skip` colors are not used."""
    palette = CATEGORIES[skip:]
    return palette[index % len(palette)], DASHES[index // len(palette) % len(DASHES)]


def percent(*axes: Axis) -> None:
    """Label fractions in percent."""
    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 6):g}%"))


def grid_shape(num: int) -> tuple[int, int]:
    """Return columns, at most three, and rows of that many panels."""
    columns = 2 if num == 4 else min(num, 3)
    return columns, -(-num // columns)


def panels(figure: Figure, num: int, **options: Any) -> list[Axes]:
    """Add that many panels to a figure, see `grid_shape`; `options` are those of `Figure.subplots`."""
    columns, rows = grid_shape(num)
    added = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for unused in added[num:]:
        unused.remove()
    return added[:num]


def wrapped(text: str, letters: int) -> str:
    """Return the text in up to three lines of at most that many letters."""
    return textwrap.fill(printable(text), letters, max_lines=3, placeholder="…")


def shortened(text: str, letters: int) -> str:
    """Return the text, cut off after that many letters."""
    text = printable(text)
    return text if len(text) <= letters else text[: letters - 1] + "…"


def legend_label(text: str, letters: int) -> str:
    """Return the label of a line or an area, cut off after that many letters; matplotlib leaves out those with "_"."""
    return shortened(f" {text}" if text.startswith("_") else text, letters)
