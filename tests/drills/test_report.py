"""What the report promises: it says how the drill ended, needs only itself, and shows texts as texts."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failover.drills.record import ActiveFault, DrillRecord, Entry, Moment, Outcome, Recovery, Sample
from failover.drills.report import render_html, render_trend
from failover.drills.report.svg import Scale, round_up
from tests.drills import records

CHROMIUM = shutil.which("chromium")
HOSTILE = """</style><script>alert("x")</script><img src=x onerror='y'>&amp;{{ 7*7 }}"]]>-->"""
VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """What a page is made of; elements that are not closed, or not opened, are an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)


@pytest.mark.parametrize("record", records.every_outcome(), ids=lambda record: record.outcome.value)
def test_every_outcome_is_rendered_with_outcome_and_score_first(record: DrillRecord) -> None:
    text = Page(render_html(record)).text
    begin = text[: text.index("Results against targets")]
    assert record.outcome.value.capitalize() in begin
    assert ("of 100 points" in begin) == (record.outcome is not Outcome.NOT_RUN)
    assert record.title in begin
    for word in (record.command, str(record.seed), record.text_hash, record.versions.python):
        assert word in text


def test_all_that_an_auditor_asks_for_is_there() -> None:
    record = records.deviated()
    text = Page(render_html(record)).text
    assert "✗ missed" in text
    for entry in record.timeline:
        assert entry.text in text
    for probe in record.hypothesis:
        assert probe.value in text
    assert record.checker is not None
    for finding in record.checker.findings:
        assert finding.text in text
        assert all(line in text for line in finding.proof)
    assert record.verifier is not None
    assert record.verifier.differences[0] in text
    assert "east-1 → west-1 → east-2 in epoch 1" in text
    assert "west-1 → east-2 → east-1 in epoch 2" in text


@pytest.mark.parametrize("html", [*map(render_html, records.every_outcome()), render_trend(records.runs(9))])
def test_nothing_from_outside_is_needed(html: str) -> None:
    page = Page(html)
    assert not {"script", "img", "link", "iframe", "object", "image", "use"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "srcset", "action", "data")
            if name == "href":
                assert (value or "").startswith("#")
    assert "url(" not in html
    assert "@import" not in html
    assert set(re.findall(r"https?://[^\"' <]+", html)) <= {"http://www.w3.org/2000/svg"}


def hostile(value: Any) -> Any:
    """The same, with a hostile text in every place where a text is."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, tuple):
        return tuple(map(hostile, value))
    if isinstance(value, dict):
        return {f"{HOSTILE}{key}": hostile(each) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: hostile(getattr(value, f.name)) for f in fields(value)})
    return value


@pytest.mark.parametrize("record", records.every_outcome(), ids=lambda record: record.outcome.value)
def test_whatever_text_is_in_a_record_is_shown_as_text(record: DrillRecord) -> None:
    for html in (render_html(hostile(record)), render_trend([hostile(record), record])):
        page = Page(html)
        assert not {"script", "img"} & {tag for tag, _ in page.tags}
        assert html.count("<style>") == 1
        assert HOSTILE in page.text
        assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def pictures(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


@pytest.mark.parametrize("record", records.every_outcome(), ids=lambda record: record.outcome.value)
def test_every_picture_says_in_words_what_it_shows(record: DrillRecord) -> None:
    drawn = pictures(render_html(record))
    assert drawn
    for picture in drawn:
        assert picture.get("role") == "img"
        said = [child.text for child in picture if child.tag.endswith(("title", "desc"))]
        assert len(said) == 2
        assert all(said)


def test_each_fault_is_shaded_and_each_moment_marked() -> None:
    record = replace(records.held(), faults=(*records.held().faults, ActiveFault("cut", "a → b", 8.0, None)))
    html = render_html(record)
    assert html.count('class="shade"') == 2
    for kind in ("detected", "decided", "fenced", "promoted", "first-write", "healthy"):
        assert html.count(f'class="moment m-{kind}"') == 1


def test_a_lag_that_is_not_known_is_a_gap_and_never_drawn_as_none() -> None:
    lags = (3, 4, None, None, 7, 8)
    samples = tuple(Sample(float(n), 1.0, 0.0, {"b": lag}) for n, lag in enumerate(lags))
    html = render_html(replace(records.held(), samples=samples))
    (curve,) = re.findall(r'<path d="([^"]+)" class="curve node0"', html)
    assert curve.count("M") == 2
    assert curve.count("L") == 2


finite = st.floats(0, 1e7)


@given(
    st.lists(st.tuples(finite, st.sampled_from(Moment)), max_size=40),
    st.lists(st.tuples(finite, st.none() | finite), max_size=8),
    st.lists(st.tuples(finite, finite, st.none() | st.integers(0, 10**12)), max_size=8),
    st.none() | finite,
)
@settings(max_examples=30)
def test_any_times_and_numbers_give_pictures_within_their_bounds(
    moments: list[tuple[float, Moment]],
    faults: list[tuple[float, float | None]],
    samples: list[tuple[float, float, int | None]],
    took_s: float | None,
) -> None:
    record = replace(
        records.held(),
        timeline=tuple(Entry(at, kind, "x" * 80) for at, kind in moments),
        faults=tuple(ActiveFault("f" * 90, "t", at, to) for at, to in faults),
        samples=tuple(
            Sample(at, rate, rate, {"n": lag}) for at, rate, lag in sorted(samples, key=lambda s: s[0])
        ),
        recovery=Recovery(took_s, took_s, took_s, took_s),
    )
    for picture in pictures(render_html(record)):
        width, height = (float(number) for number in (picture.get("viewBox") or "").split()[2:])
        for part in picture.iter():
            for name, most in (("x", width), ("cx", width), ("x2", width), ("y", height), ("cy", height)):
                assert -1 <= float(part.get(name) or 0) <= most + 1


@given(finite, st.integers(1, 12))
def test_axes_have_few_round_ticks(high: float, most: int) -> None:
    scale = Scale(0.0, round_up(max(1.0, high)), 100.0, 0.0)
    ticks = scale.ticks(most)
    assert 1 <= len(ticks) <= most + 1
    assert all(0 <= scale(tick) <= 100 for tick in ticks)


def test_the_runs_of_a_drill_are_compared_the_latest_first_and_a_changed_drill_is_marked() -> None:
    page = Page(render_trend(reversed(records.runs(9))))
    assert "7 of 9 runs held" in page.text
    assert page.text.index("2027-01-19 09:30 held") < page.text.index("2026-12-15 09:30 deviated")
    assert page.text.count("changed") == 1


def test_several_drills_have_an_overview_and_none_a_word_on_what_to_do() -> None:
    other = replace(records.held(), name="another-drill")
    assert "another-drill" in Page(render_trend([records.deviated(), other])).text
    assert "chainctl drill run" in Page(render_trend([])).text


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_a_browser_draws_it_without_a_complaint_and_without_the_network(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    html = render_html(records.deviated())
    assert _FORBIDS in html  # the page's own rules forbid scripts; they have to be let in to measure it
    page.write_text(html.replace(_FORBIDS, _LETS_IN).replace("</body>", f"{_MEASURES}</body>"))
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1280,2400",
            "--dump-dom",
            f"file://{page}",
        ),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    (measured,) = re.findall(r'data-measured="([^"]*)"', done.stdout)
    assert measured == "wide: none; pictures: 4; undrawn: none; fetched: 0"


_FORBIDS = "default-src 'none'"
_LETS_IN = "default-src 'none'; script-src 'unsafe-inline'"
_MEASURES = """
<script>
const all = [...document.querySelectorAll("body *")];
const wide = all.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName);
const drawn = [...document.querySelectorAll("svg")];
const empty = drawn.filter(e => e.getBoundingClientRect().height < 40).map(e => e.tagName);
const fetched = performance.getEntriesByType("resource").length;
document.body.dataset.measured =
  `wide: ${wide.join() || "none"}; pictures: ${drawn.length}; ` +
  `undrawn: ${empty.join() || "none"}; fetched: ${fetched}`;
</script>
"""
