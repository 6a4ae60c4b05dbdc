"""One table in its three forms, letter by letter."""

import csv

import pytest

from mgr_jax.tables import Table, as_csv, as_markdown, as_text

SMALL = Table(
    ("feature", "n", "accuracy"),
    [("tempogram", "290", "49.0 +- 1.2"), ("chroma", "1,000", "-")],
    "a title",
)


def test_text_aligns_words_to_the_left_and_numbers_to_the_right():
    assert as_text(SMALL).splitlines() == [
        "a title",
        "feature        n     accuracy",
        "---------  -----  -----------",
        "tempogram    290  49.0 +- 1.2",
        "chroma     1,000            -",
    ]


def test_text_adds_nothing_but_ascii_and_keeps_a_row_on_its_line():
    text = as_text(Table(("genre",), [("a\nb",), ("ärger",)]))
    assert text.splitlines() == ["genre", "-----", "a b", "ärger"]


def test_markdown_escapes_what_would_end_a_cell():
    table = Table(("genre | label", "n"), [("rock | roll \\ jazz", 3)])
    assert as_markdown(table).splitlines() == [
        "| genre \\| label | n |",
        "| --- | ---: |",
        "| rock \\| roll \\\\ jazz | 3 |",
    ]


def test_markdown_has_its_title_above_and_an_empty_line():
    assert as_markdown(SMALL).splitlines()[:3] == [
        "a title",
        "",
        "| feature | n | accuracy |",
    ]


def test_a_table_without_rows_is_its_header():
    empty = Table(("a", "b"), [])
    assert as_text(empty).splitlines() == ["a  b", "-  -"]
    assert as_markdown(empty).splitlines()[0] == "| a | b |"


def test_csv_keeps_every_digit_and_reads_back(tmp_path):
    rows = [(0.1 + 0.2, None, 'a, "b"\nc'), (1 / 3, 7, "ü")]
    path = as_csv(Table(("share", "n", "name"), rows, "title"), tmp_path / "t.csv")
    with path.open(newline="", encoding="utf-8") as file:
        header, first, second = csv.reader(file)
    assert header == ["share", "n", "name"]
    assert float(first[0]) == 0.1 + 0.2
    assert first[1:] == ["", 'a, "b"\nc']
    assert float(second[0]) == 1 / 3
    assert second[1:] == ["7", "ü"]


def test_a_row_that_does_not_fit_its_header_is_refused():
    with pytest.raises(ValueError, match="3 cells in a row of 2"):
        Table(("a", "b"), [(1, 2, 3)])
