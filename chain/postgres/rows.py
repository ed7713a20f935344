"""Rows of the schema `chain` as what they mean, and what every query of the log asks for."""

from __future__ import annotations

from typing import Any, Final

from chain.encoding import COLUMNS
from chain.errors import Corrupt
from chain.event import Epoch, Event, Position, Tip

EVENT: Final = ", ".join(COLUMNS)
# Nothing is handed out that a crash could take back: what a statement sees is durable before it is answered.
SETTLED: Final = "(select chain.settle())"
# A row beyond the tip is none of the log, whoever put it there.
TIPPED: Final = "position <= (select tip_position from chain.node)"


def event_of(row: Any) -> Event:
    return Event._make(row[: len(COLUMNS)])


def tip_of(row: Any) -> Tip:
    if row is None:
        raise Corrupt("chain.node has lost its row", hint="restore the node, or wipe and bootstrap it")
    return Tip(Position(row["tip_position"]), Epoch(row["tip_epoch"]))
