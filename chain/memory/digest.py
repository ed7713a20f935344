"""The digest of events, byte for byte what `chain.digest` of the Postgres store computes."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from chain.event import Event

_ORIGIN: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def digest(events: Iterable[Event]) -> bytes:
    """SHA-256 over the SHA-256 of each event; the event's bytes are described in sql/functions/digest.sql."""
    whole = hashlib.sha256()
    for event in events:
        whole.update(_digest_one(event))
    return whole.digest()


def _digest_one(event: Event) -> bytes:
    one = hashlib.sha256(struct.pack("!qqq", event.position, event.epoch, event.revision))
    one.update(event.id.bytes)
    one.update(struct.pack("!q", (event.recorded_at - _ORIGIN) // _MICROSECOND))
    for value in (event.stream.encode(), event.type.encode(), event.data, event.metadata):
        one.update(struct.pack("!q", len(value)))
        one.update(value)
    return one.digest()
