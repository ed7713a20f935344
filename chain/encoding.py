"""How events travel between stores: PostgreSQL's binary COPY rows.

A batch between two Postgres nodes is passed through undecoded; every other store encodes to and decodes
from the same rows, so that any store can follow any other. The format is described in the PostgreSQL
manual, chapter "COPY", section "Binary Format". Columns, in order: position, epoch, stream, revision, id,
type, data, metadata, recorded_at.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from chain.errors import Corrupt
from chain.event import Epoch, Event, Position, Revision

ENCODING: Final = "pgcopy-1"
COLUMNS: Final = (
    "position",
    "epoch",
    "stream",
    "revision",
    "id",
    "type",
    "data",
    "metadata",
    "recorded_at",
)

_HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + struct.pack("!ii", 0, 0)
_TRAILER: Final = struct.pack("!h", -1)
_POSTGRES_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def encode(events: Iterable[Event]) -> tuple[bytes, ...]:
    """The events as one binary COPY stream, in a chunk an event."""
    return (_HEADER, *map(_encode_row, events), _TRAILER)


def decode(chunks: Sequence[bytes]) -> tuple[Event, ...]:
    """The events of a binary COPY stream. Raises Corrupt if it is not one, whole and well-formed."""
    data = b"".join(chunks)
    try:
        return tuple(_decode_rows(data))
    except (struct.error, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise Corrupt(f"a batch of {len(data):,} bytes can't be decoded: {error}") from error


def split_first(chunks: Sequence[bytes]) -> tuple[Event, tuple[bytes, ...]]:
    """The first event of a binary COPY stream, and the stream without it; the others stay undecoded.

    Raises Corrupt if there is none.
    """
    # An event's row may come in any number of chunks: join as many as it takes.
    for used in range(1, len(chunks) + 1):
        data = b"".join(chunks[:used])
        end = _row_end(data, len(_HEADER))
        if end is not None:
            (event,) = decode([data[:end], _TRAILER])
            return event, (_HEADER, data[end:], *chunks[used:])
    raise Corrupt("a batch has no first event")


def _row_end(data: bytes, at: int) -> int | None:
    """Where the row at `at` ends; None if it is not all there."""
    try:
        (count,) = struct.unpack_from("!h", data, at)
        at += 2
        for _ in range(max(0, count)):
            (size,) = struct.unpack_from("!i", data, at)
            at += 4 + max(0, size)
    except struct.error:
        return None
    return at if at <= len(data) and count > 0 else None


def _encode_row(event: Event) -> bytes:
    fields = (
        struct.pack("!q", event.position),
        struct.pack("!q", event.epoch),
        event.stream.encode(),
        struct.pack("!q", event.revision),
        event.id.bytes,
        event.type.encode(),
        event.data,
        event.metadata,
        struct.pack("!q", (event.recorded_at - _POSTGRES_EPOCH) // _MICROSECOND),
    )
    row = [struct.pack("!h", len(fields))]
    for value in fields:
        row += (struct.pack("!i", len(value)), value)
    return b"".join(row)


def _decode_rows(data: bytes) -> Iterator[Event]:
    if not data.startswith(_HEADER):
        raise ValueError("no binary COPY header")
    at = len(_HEADER)
    while True:
        (count,) = struct.unpack_from("!h", data, at)
        at += 2
        if count == -1:
            if at != len(data):
                raise ValueError("bytes after the trailer")
            return
        if count != len(COLUMNS):
            raise ValueError(f"a row of {count} columns instead of {len(COLUMNS)}")
        fields: list[bytes] = []
        for _ in range(count):
            (size,) = struct.unpack_from("!i", data, at)
            at += 4
            if size < 0 or at + size > len(data):
                raise ValueError("a field is null or cut off")
            fields.append(data[at : at + size])
            at += size
        yield _event(fields)


def _event(fields: Sequence[bytes]) -> Event:
    position, epoch, stream, revision, ident, type_, data, metadata, recorded_at = fields
    return Event(
        Position(_int8(position)),
        Epoch(_int8(epoch)),
        stream.decode(),
        Revision(_int8(revision)),
        UUID(bytes=ident),
        type_.decode(),
        data,
        metadata,
        _POSTGRES_EPOCH + _int8(recorded_at) * _MICROSECOND,
    )


def _int8(value: bytes) -> int:
    number: int
    (number,) = struct.unpack("!q", value)
    return number
