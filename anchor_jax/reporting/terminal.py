"""Lines and tables on the terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from anchor_jax.runtime.paths import printable

_LETTERS, _FEWEST_LETTERS = 34, 18  # of the first column: at most, and where the terminal is narrow


def print_lines(*lines: str) -> None:
    """Print lines as they are; a terminal may wrap them."""
    for line in lines:
        Console().print(printable(line), soft_wrap=True, highlight=False, markup=False)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", names: int = 1) -> None:
    """Print a table whose rows are one line each; columns that do not fit are printed as another table below.

    Args:
      headings: of the columns.
      rows: their cells.
      title: above it.
      names: number of columns that name the rows, and are repeated in each table; the first may be cut off.
    """
    console = Console()
    for part in _parts(console, headings, rows, title, names):
        console.print(part)


def print_either_way(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, transposed if it then has to be split into fewer tables."""
    console = Console()
    exchanged = list(zip(headings, *rows, strict=True))
    ways = [_parts(console, first, others, "", 1) for first, *others in ([headings, *rows], exchanged)]
    for part in min(ways, key=len):
        console.print(part)


def _parts(
    console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]], title: str, names: int
) -> list[Table]:
    """Split a table into tables that fit the terminal."""
    others, parts = list(range(names, len(headings))), list[Table]()
    unlimited = console.options.update(max_width=10_000)

    def table(columns: Sequence[int], letters: int) -> Table:
        of_columns = Table(
            title=Text(title) if title else None, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        for column in (*range(names), *columns):
            width = letters if column == 0 else None
            justify = "left" if column < names else "right"
            of_columns.add_column(Text(printable(headings[column])), no_wrap=True, max_width=width, justify=justify)
        for row in rows:
            of_columns.add_row(*(Text(printable(row[column])) for column in (*range(names), *columns)))
        return of_columns

    def excess(columns: Sequence[int], letters: int) -> int:
        return console.measure(table(columns, letters), options=unlimited).maximum - console.width

    longest = max(cell_len(row[0]) for row in [headings, *rows])
    widest = min(_LETTERS, console.width // 2, longest)
    shortened = widest - max(0, excess(others, widest))
    letters = shortened if shortened >= _FEWEST_LETTERS else widest  # or several tables
    while others:
        fitting = next(num for num in range(len(others), 0, -1) if num == 1 or excess(others[:num], letters) <= 0)
        parts.append(table(others[:fitting], letters))
        others = others[fitting:]
    return parts
