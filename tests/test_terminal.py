"""Tests of tables on the terminal: every row is one line, whatever the width, and no number is cut off."""

import pytest

from anchor_jax.reporting.terminal import print_either_way, print_table


def printed_lines(capsys, monkeypatch, width, *arguments, **options):
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(*arguments, **options)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= width for line in lines)
    return lines


@pytest.mark.parametrize("width", [50, 80, 200])
@pytest.mark.parametrize("num", [1, 2, 9])
def test_print_table_splits_columns_that_do_not_fit(capsys, monkeypatch, width, num):
    headings = ["", *(f"{10 ** min(place, 3) + place:,} references" for place in range(num))]
    rows = [[name, *(f"{place}.{row:04}" for place in range(num))] for row, name in enumerate(("NLL ↓", "A" * 90))]
    lines = printed_lines(capsys, monkeypatch, width, headings, rows)
    for row in rows:
        found = [line for line in lines if line.strip().startswith(row[0][:12])]
        assert [cell for line in found for cell in line.split()[1 + row[0].count(" ") :]] == row[1:]
    joined = " ".join(" ".join(lines).split())
    assert all(heading in joined for heading in headings)


def test_print_table_shortens_names_before_it_splits(capsys, monkeypatch):
    number = "−0.0170 ± 0.1015"
    rows = [["AUROC, mean of the near sets, mutual information % ↑", "AB", number, number, number]]
    lines = printed_lines(capsys, monkeypatch, 80, ["metric", "", "mean ± std", "Δ seeds", "Δ examples"], rows, names=2)
    [line] = [line for line in lines if "AUROC" in line]
    assert line.count(number) == 3
    assert "… " in line


@pytest.mark.parametrize(("num", "is_exchanged"), [(2, False), (9, True)])
def test_print_either_way_exchanges_rows_of_wide_tables(capsys, monkeypatch, num, is_exchanged):
    monkeypatch.setenv("COLUMNS", "80")
    columns, names = [f"LAC / spread, {place} references" for place in range(num)], ("coverage % ↑", "set size ↓")
    print_either_way(["", *columns], [[name, *(f"{place}.0" for place in range(num))] for name in names])
    text = capsys.readouterr().out
    first = columns[0] if is_exchanged else "set"
    found = [line.split() for line in text.splitlines() if line.strip().startswith(first)]
    assert found == ([[*columns[0].split(), "0.0", "0.0"]] if is_exchanged else [["set", "size", "↓", "0.0", "1.0"]])
