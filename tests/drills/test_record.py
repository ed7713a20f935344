"""The file of a record: what is written is read back, and what is no record is refused with a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest

from chain.errors import BadFile
from failover.drills.record import (
    VERSION,
    DrillRecord,
    Loss,
    Outcome,
    Recovery,
    from_json,
    read_record,
    to_json,
)
from tests.drills import records


@pytest.mark.parametrize("record", records.every_outcome(), ids=lambda record: record.outcome.value)
def test_a_record_is_read_back_as_it_was(record: DrillRecord) -> None:
    assert from_json(to_json(record), "x") == record


def test_a_text_that_is_no_text_survives_the_file(tmp_path: Path) -> None:
    record = replace(records.held(), errors=("\udcff \x00 \u202e →",))
    path = tmp_path / "record.json"
    path.write_text(to_json(record), encoding="utf-8")
    assert read_record(path) == record


def test_a_number_without_end_is_written_as_not_known() -> None:
    record = replace(records.held(), recovery=Recovery(5.0, inf))
    assert from_json(to_json(record), "x").recovery == Recovery(5.0, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": VERSION + 1}, "version 2; this geochain reads version 1"),
        ({"version": "1"}, "has no version"),
        ({"outcome": "splendid"}, "outcome"),
        ({"seed": "much"}, "seed"),
        ({"timeline": [{"at_s": 1}]}, "timeline.0"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(change: dict[str, Any], reason: str) -> None:
    content = {**json.loads(to_json(records.held())), **change}
    with pytest.raises(BadFile, match=reason) as caught:
        from_json(json.dumps(content), "here.json")
    assert caught.value.message.startswith("here.json")
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "[" * 100_000, '{"version": 1}', "\ud800"])
def test_what_is_no_record_at_all_is_refused(text: str) -> None:
    with pytest.raises(BadFile):
        from_json(text, "x")


def test_a_file_that_can_t_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "none.json", tmp_path / "bytes.json", tmp_path):
        with pytest.raises(BadFile, match=path.name):
            read_record(path)


def test_what_was_not_measured_never_meets_a_target() -> None:
    assert Recovery(5.0, None).met is False
    assert Recovery(5.0, 4.0, healthy_target_s=9.0).met is False
    assert Recovery(None, 4.0).met is None
    assert Loss(0, None).met is False
    assert Loss(0, {"head": 0}, None, 0).met is False
    assert Loss(0, {"head": 0}, 0, 0).met is True


def test_every_outcome_is_among_the_records() -> None:
    assert {record.outcome for record in records.every_outcome()} == set(Outcome)
