"""The table and the page show what was measured, what was not and why, and which goals were missed."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from bench import table
from bench.machine import Machine
from bench.plot import plot
from bench.results import Results, as_json, write
from bench.series import Comparison, Goal, Sense, Series

COPY = Comparison(
    "catch-up",
    "events/s",
    Sense.AT_LEAST,
    (
        Series("link", (100_000.0, 120_000.0, 110_000.0)),
        Series("psql | psql", (220_000.0,)),
        Series("other", missing="<it> is not here"),
    ),
    (Goal(1.0, "psql | psql"), Goal(2.0, "other"), Goal(90_000)),
    note="a & b",
)
PAUSE = Comparison("pause", "ms", Sense.AT_MOST, (Series("geochain", (12.3456,)),), (Goal(250),))
MACHINE = Machine("cpu", 2, 2**34, "Linux", "ext4", 0.5, 3000.0, {"python": "3.11"}, {"max_wal_size": "4GB"})
RESULTS = Results("smoke", MACHINE, (COPY, PAUSE), ("growth: no room",), 60.0)


def test_each_row_of_the_table_has_its_ratio_its_goal_and_its_verdict() -> None:
    assert table.rows([COPY, PAUSE]) == [
        ("catch-up", "events/s", "110,000", "100,000 – 120,000", "", "", "", "≥ 90,000", "met"),
        ("", "", "", "", "psql | psql", "220,000", "0.50 ×", "≥ 1 ×", "MISSED"),
        ("", "", "", "", "other", "not measured: <it> is not here", "", "≥ 2 ×", "unknown"),
        ("pause", "ms", "12.3", "", "", "", "", "≤ 250", "met"),
    ]


def test_markdown_has_as_many_cells_in_each_line_whatever_a_name_holds() -> None:
    lines = table.markdown([COPY, PAUSE]).splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(table.HEAD) + 1}


def test_a_picture_is_sound_and_tells_why_a_bar_is_not_there() -> None:
    picture = ElementTree.fromstring(plot(COPY))
    texts = [element.text for element in picture.iter("text")]
    assert "not measured: <it> is not here" in texts
    assert len(list(picture.iter("rect"))) == 2
    assert len(list(picture.iter("circle"))) == 4


def test_a_bound_is_drawn_only_where_it_fits_beside_the_bars() -> None:
    bounds = [line for line in ElementTree.fromstring(plot(COPY)).iter("line") if line.get("class") == "goal"]
    assert len(bounds) == 1
    assert not [e for e in ElementTree.fromstring(plot(PAUSE)).iter("line") if e.get("class") == "goal"]


def test_the_page_needs_nothing_from_outside_and_lets_no_text_through_as_markup(tmp_path: Path) -> None:
    write(RESULTS, tmp_path)
    text = (tmp_path / "results.html").read_text()
    assert not re.search(r"(src|href|url|@import)\s*[=(]", text)
    assert "&lt;it&gt;" in text
    assert "<it>" not in text
    assert "growth: no room" in text
    assert "3 met" not in text
    assert "2 met, 1 missed, 1 unknown" in text


def test_the_json_has_every_value_and_what_is_missing() -> None:
    found = json.loads(json.dumps(as_json(RESULTS, datetime(2026, 1, 1, tzinfo=UTC))))
    assert found["machine"]["settings"] == {"max_wal_size": "4GB"}
    assert [s.get("values") for s in found["comparisons"][0]["series"]] == [
        [100_000.0, 120_000.0, 110_000.0],
        [220_000.0],
        None,
    ]
    assert found["comparisons"][0]["series"][2]["missing"] == "<it> is not here"
    assert [g["verdict"] for g in found["comparisons"][0]["goals"]] == ["missed", "unknown", "met"]
