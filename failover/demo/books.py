"""What the purchases of the demo come to, counted from the file and from the tail."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from failover.purchases import cents


@dataclass(frozen=True, slots=True)
class Books:
    """What the purchases come to."""

    events: int = 0
    customers: frozenset[str] = frozenset()
    cds: int = 0
    cents: int = 0

    @staticmethod
    def of(lines: Iterable[tuple[str, bytes]]) -> Books:
        """The books of (stream, data)."""
        events = cds = money = 0
        customers = set()
        for stream, data in lines:
            events += 1
            customers.add(stream)
            try:
                fields = json.loads(data)
                cds += int(fields.get("cds", 0))
                money += cents(fields.get("dollars", 0))
            except (ValueError, AttributeError, TypeError):
                continue
        return Books(events, frozenset(customers), cds, money)

    def plain(self) -> dict[str, Any]:
        """For people and for JSON."""
        return {
            "events": self.events,
            "customers": len(self.customers),
            "cds": self.cds,
            "dollars": f"{self.cents / 100:.2f}",
        }
