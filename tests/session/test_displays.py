"""What a notebook shows of a session: short, and no text of the file becomes part of the page."""

from html.parser import HTMLParser

import h5py
import numpy as np
import pytest

from session import Session
from session.displays import LONGEST
from session.tables import Table

HOSTILE = '</td></table><script>alert("x")</script><img src=x onerror=alert(1)> & \'"'
STYLES = {"text-align: left", "overflow-x: auto", "white-space: nowrap"}
ALLOWED = {"div", "p", "b", "br", "small", "table", "thead", "tbody", "tr", "th", "td"}


class Page(HTMLParser):
    """Collects what a browser would: the tags, their attributes, and the text."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text, self.open = set(), set(), "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= set(attrs)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page_of(shown):
    page = Page(shown._repr_html_())
    assert page.tags <= ALLOWED
    assert page.attributes <= {("style", style) for style in STYLES}
    assert not page.open
    return page


def test_a_session_says_what_is_in_it(write_session):
    path = write_session()
    with Session.open(path) as session:
        page = page_of(session)
        readings, tracks = session.count("samples"), session.tracks
        assert readings == len(session.samples()) > 0
        for track in tracks:
            assert session.count(f"tracks/{track}") == len(session.table(f"tracks/{track}"))
        for told in (session.title, session.exit_reason, f"{readings} readings", *session.cameras):
            assert told in page.text, told
        assert repr(session) == f"<Session {path.name}>"
    assert "closed" in page_of(session).text
    assert str(path.parent) not in page_of(session).text


def test_text_of_a_file_stays_text(write_session):
    path = write_session()
    with h5py.File(path, "r+") as file:
        for name in ("title", "exit_reason"):
            del file["entry"][name]
            file["entry"][name] = HOSTILE
        file["entry/sample"].attrs["layers"] = [HOSTILE]
    with Session.open(path) as session:
        assert page_of(session).text.count(HOSTILE) == 3


def test_a_long_text_is_cut(write_session):
    path = write_session()
    with h5py.File(path, "r+") as file:
        del file["entry/title"]
        file["entry/title"] = "&" * 100_000
    with Session.open(path) as session:
        page = page_of(session)
    assert "&" * LONGEST + "..." in page.text
    assert len(page.text) < 2000


def test_what_is_damaged_is_said_and_the_rest_is_shown(write_session):
    path = write_session()
    with h5py.File(path, "r+") as file:
        del file["entry/exit_reason"]
    with Session.open(path) as session:
        text = page_of(session).text
        assert "has no 'exit_reason'" in text
        assert session.title in text


@pytest.mark.parametrize("rows", [0, 1, 5, 6, 1000])
def test_a_table_shows_its_ends_with_units(rows):
    table = Table(
        path="tracks/<b>front",
        columns={
            "t_ns": np.arange(rows) + 7_000,
            HOSTILE: np.full(rows, HOSTILE, object),
            "position": np.linspace(0, 1e-9, rows),
            "profile": np.zeros((rows, 4)),
        },
        units={"position": "<m>"},
        attributes={},
    )
    page = page_of(table)
    assert f"{rows} rows" in page.text
    assert "tracks/<b>front" in page.text
    assert "<m>" in page.text
    assert page.text.count(HOSTILE) == 1 + min(rows, 5)
    assert ("..." in page.text) == (rows > 5)
    if rows:
        assert str(7_000 + rows - 1) in page.text
        assert "(4,) float64" in page.text


def test_a_wide_table_tells_how_much_is_left_out():
    columns = {f"c{i}": np.zeros(2) for i in range(14)}
    table = Table(path="x", columns=columns, units={}, attributes={})
    assert "4 more columns" in page_of(table).text
    assert repr(table).startswith("<Table x: 2 rows of c0, c1")


def test_a_table_of_single_values_is_shown():
    table = Table(path="x", columns={"a": np.float64(2.5).reshape(())}, units={}, attributes={})
    assert "0 rows" in page_of(table).text
