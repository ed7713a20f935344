"""The events that are measured with: always the same ones, about 380 bytes each as a row.

Of a thousand rows a hundred are of one stream, one is of a second, one in a hundred thousand of a third (else
of a fourth), and the others of orders, which have 50 events each: in a million rows the first three streams
have 100,000, 1,000 and 10. Row number i, from 0, is at position i + 2 of a log, behind the first promotion.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

FIRST_POSITION: Final = 2
"""Of row 0: the promotion is at 1."""

STREAMS: Final = {size: f"account-{size}" for size in (10, 1_000, 100_000)}
"""A stream with so many events, in a log of a million rows."""

ROWS: Final = Path(__file__).with_name("rows.sql").read_text()
"""SQL for the rows $1 to $2, both included."""

DATA_BYTES: Final = 191
METADATA: Final = b'{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'


def payloads(count: int, data_bytes: int = DATA_BYTES) -> list[bytes]:
    """JSON of about that many bytes each, all different, the same every time."""
    return [_payload(number, data_bytes) for number in range(count)]


def _payload(number: int, data_bytes: int) -> bytes:
    frame = b'{"n":"%010d","payload":"' % number
    room = max(0, data_bytes - len(frame) - 2)
    return frame + hashlib.shake_128(b"%d" % number).hexdigest((room + 1) // 2)[:room].encode() + b'"}'
