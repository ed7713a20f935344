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


_INLINE: Final = 1024


def digest(events: Iterable[Event]) -> bytes:
    """SHA-512 over the events, each as described in sql/functions/digest.sql."""
    whole = hashlib.sha512()
    for event in events:
        whole.update(struct.pack("!qqq", event.position, event.epoch, event.revision))
        whole.update(event.id.bytes)
        whole.update(struct.pack("!q", (event.recorded_at - _ORIGIN) // _MICROSECOND))
        for value in (event.stream.encode(), event.type.encode(), event.data, event.metadata):
            whole.update(struct.pack("!i", len(value)))
            whole.update(value if len(value) <= _INLINE else hashlib.sha512(value).digest())
    return whole.digest()
