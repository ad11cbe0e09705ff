"""The page: one file, complete, safe with any text, and readable without colour."""

from __future__ import annotations

import base64
import math
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from localgd.experiments.claim import Check, Experiment, Result, Verdict, Word
from localgd.experiments.page import SYMBOLS, page

CHECKS = (
    Check("relative error", 0.0123456, 0.03),
    Check("largest <angle> (degrees)", math.nan, 10.0),
    Check("share", 0.5, 0.9, "at least", limits="half of the runs & no more"),
)
SAID = {"title": "A & B <i>", "claim": "x < y", "source": "Zhu & others", "caption": 'Read "it" so'}
VOID = {"meta", "img", "br"}


def of(name):
    return Experiment(name, **SAID, quick=(), full=(), run=None, judge=None, draw=None)


class Reader(HTMLParser):
    """Collects text and attributes, and checks that tags close."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.attributes, self.tags = [], "", [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.text += " " if tag in ("td", "th", "dt") else ""

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def read(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "figure.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    results = [
        Result(of("one"), 3, Verdict(CHECKS), quick=True),
        Result(of("two"), skipped="pip install 'localgd[embed]'"),
        Result(of("three"), fault="cell <5>\nTraceback: <module>"),
    ]
    path = tmp_path / "index.html"
    page(results, {"numpy": "2.1", "machine": "a <box>"}, path, command="localgd reproduce --out 'A B'")
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


def test_the_page_is_one_file_that_needs_no_network(read):
    assert not {"script", "link", "iframe"} & set(read.tags)
    targets = [value for _, name, value in read.attributes if name in ("src", "href")]
    figures = [value for value in targets if value.startswith("data:")]
    assert len(figures) == 1
    assert base64.b64decode(figures[0].split(",")[1]).startswith(b"<svg")
    assert set(targets) - set(figures) == {
        *("#one", "#two", "#three"),
        *("one/rows.csv", "one/figure.png", "one/verdict.json"),
    }
    assert {value for tag, name, value in read.attributes if name == "id"} == {"one", "two", "three"}
    assert ("html", "lang", "en") in read.attributes
    assert ("img", "alt", 'Figure: A & B <i>. Read "it" so') in read.attributes
    assert any(name == "name" and value == "viewport" for _, name, value in read.attributes)


def test_everything_is_said_in_words_and_text_stays_text(read):
    said = " ".join(read.text.split())
    assert "i" not in read.tags
    assert said.index("Limits first.") < said.index("3 claims:")
    for words in (
        "Quick grids",
        "✘ 1 does not hold, ⚠ 1 failed, – 1 skipped.",
        "✘ does not hold: not measured: largest <angle> (degrees)",
        "relative error 0.01235 at most 0.03 the claim does not hold ✔ passed",
        "largest <angle> (degrees) no number at most 10 the claim does not hold ✘ failed",
        "share 0.5 at least 0.9 the claim has a limit ◐ limit: half of the runs & no more",
        "– skipped: pip install 'localgd[embed]'",
        "⚠ failed: cell <5>",
        "Traceback: <module>",
        "3 cells, quick grid",
        "localgd reproduce --out 'A B'",
        "a <box>",
        "Seed of a cell:",
    ):
        assert words in said, words


def test_every_word_of_a_verdict_has_a_sign_of_its_own():
    assert {str(word) for word in Word} | {"failed", "skipped"} == set(SYMBOLS)
    assert len(set(SYMBOLS.values())) == len(SYMBOLS)


def test_the_template_has_a_colour_for_every_word_and_both_lights():
    template = files("localgd.experiments").joinpath("page.html.j2").read_text(encoding="utf-8")
    for word in SYMBOLS:
        assert f".{word.replace(' ', '-')}" in template
    for words in ("prefers-color-scheme: dark", "@media print", "@media (max-width"):
        assert words in template
