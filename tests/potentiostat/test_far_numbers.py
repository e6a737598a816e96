"""Numbers that no clock and no instrument gives are refused before they are computed with."""

import pytest

from potentiostat.files.generic_csv import read
from potentiostat.files.recording import RecordingError

GOOD = [["0.0", "3.1", "1.0"], ["1.0", "3.2", "1.0"], ["2.0", "3.3", "1.0"]]


def table(row, column, text):
    rows = [list(cells) for cells in GOOD]
    rows[row][column] = text
    return "time_s,Ewe/V,I [nA]\n" + "".join(",".join(cells) + "\n" for cells in rows)


@pytest.mark.parametrize(
    ("row", "column", "text", "why"),
    [
        (0, 0, "-9223372036854775808", r"row 0 \(from 0\) is at -9.22337e\+18 s"),
        (2, 0, "1e300", r"row 2 \(from 0\) is at 1e\+300 s"),
        (1, 2, "1e308", r"row 1 \(from 0\) holds 1e\+299"),
        (1, 1, "-1e308", r"row 1 \(from 0\) holds -1e\+308"),
    ],
)
def test_the_row_is_named(tmp_path, row, column, text, why):
    path = tmp_path / "a.csv"
    path.write_text(table(row, column, text))
    with pytest.raises(RecordingError, match=why):
        read(path)
