"""The page of all keys of an experiment file: it is of this code, and leaves nothing out."""

from pathlib import Path

import pytest

from correlate.registry import tracker_names, tracker_options
from runner.config_page import _meanings, reference_page
from runner.config_reading import AS_WRITTEN, TABLES

PAGE = Path(__file__).parents[2] / "docs" / "experiment-file.md"


def test_the_page_is_of_this_code():
    told = "python -m runner.config_page > docs/experiment-file.md"
    assert PAGE.read_text("utf-8") == reference_page(), f"write it again: {told}"


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.__name__)
def test_each_key_has_a_meaning_and_each_meaning_a_key(table):
    meanings = dict(_meanings(table))
    assert list(meanings) == [key for key in meanings if key in table.model_fields]
    assert set(meanings) == set(table.model_fields)


def test_keys_stand_there_as_they_are_written():
    page = reference_page()
    for table in TABLES.values():
        for key in table.model_fields:
            assert f"| `{AS_WRITTEN.get(key, key)}` | " in page
    assert "| `duration` |" not in page
    for row in (
        '| `rate_window` | a time, `"10 min"` | `"2 s"` | ',
        '| `compression` | `"none"` or `"auto"` or `"deflate"` or `"bitshuffle-lz4"` | `"none"` | ',
        '| `code` | `"auto"` or whole number | `"auto"` | ',
        '| `from` | `"4.1 V"` or `"OCV + 20 mV"` | `"OCV"` | ',
        "| `title` | text | **refused** | ",
    ):
        assert row in page
    for name in tracker_names():
        for option in tracker_options(name):
            assert f"| `{option}` | " in page.partition(f'tracker = "{name}"')[2]
