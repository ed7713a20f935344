"""What is measured, one kind a file; `ALL` is the order of the report."""

from __future__ import annotations

from typing import Final

from bench.measure import Measure
from bench.measures import append, bootstrap, catch_up, command, failover, growth, reading, steady, verify

ALL: Final[tuple[Measure, ...]] = (
    *append.MEASURES,
    *reading.MEASURES,
    *catch_up.MEASURES,
    *steady.MEASURES,
    *verify.MEASURES,
    *bootstrap.MEASURES,
    *failover.MEASURES,
    *growth.MEASURES,
    *command.MEASURES,
)
