"""The purchases of the demo, and files of events of the user's own.

A line becomes one event with an id that follows from the file and the line, so that an import that was
killed can be run again: what is stored already is not stored twice.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from pathlib import Path
from typing import Final
from uuid import UUID, uuid5

from chain.errors import BadEvent, BadFile
from chain.event import NewEvent, check_append

_NAMESPACE: Final = UUID("0c5f1a3e-7a0f-5c53-8f55-0f6d3d1f7b21")
_NAMES: Final = "customer-{customer_id}"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file as an event, and where it goes."""

    number: int
    stream: str
    event: NewEvent


@dataclass(slots=True)
class Skipped:
    """Lines that were left out, counted; the first is kept for the message."""

    count: int = 0
    first: str = ""

    def add(self, error: BadFile) -> None:
        self.count += 1
        self.first = self.first or error.message


def cdnow() -> Iterator[Line]:
    """The 69,659 purchases, each a `Purchased` on the stream of its customer."""
    packed = files("failover").joinpath("data", "cdnow_master.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode().splitlines()
    for number, line in enumerate(lines[1:], 2):
        customer, date, cds, dollars = line.split()
        data = {
            "customer": customer,
            "date": f"{date[:4]}-{date[4:6]}-{date[6:]}",
            "cds": int(cds),
            "dollars": dollars,
        }
        yield Line(number, f"customer-{customer}", _event("cdnow", number, "Purchased", data))


def read_events(
    path: Path, *, stream: str = _NAMES, type_: str = "Imported", skipped: Skipped | None = None
) -> Iterator[Line]:
    """The events of a JSON-lines or CSV file (by its suffix), in order.

    A JSON line is {"stream", "type", "data", "metadata"?, "id"?}; data is any JSON. A CSV file has a header;
    a row's stream is the template `stream` filled from its columns (a column `stream` or `type` is taken
    as it is), and its data the row as JSON. Raises BadFile with the line's number, or counts it in `skipped`.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error
    origin = hashlib.sha256(raw).hexdigest()
    rows = _csv_rows(raw, path) if path.suffix.lower() == ".csv" else _json_rows(raw, path)
    for number, row in rows:
        try:
            line = _line(row, number, path, origin, stream, type_)
        except BadFile as error:
            if skipped is None:
                raise
            skipped.add(error)
        else:
            yield line


def _line(
    row: Mapping[str, object] | BadFile, number: int, path: Path, origin: str, stream: str, type_: str
) -> Line:
    if isinstance(row, BadFile):
        raise row
    where = f"{path}:{number}"
    try:
        name = str(row["stream"]) if "stream" in row else stream.format(**row)
        given = row.get("id")
        ident = UUID(str(given)) if given else uuid5(_NAMESPACE, f"{origin}/{number}")
        data = row["data"] if "data" in row else {k: v for k, v in row.items() if k not in ("stream", "type")}
        metadata = json.dumps(row["metadata"]).encode() if row.get("metadata") is not None else b""
        event = NewEvent(str(row.get("type", type_)), json.dumps(data).encode(), metadata, ident)
        check_append(name, [event])
    except (KeyError, IndexError) as error:
        raise BadFile(f"{where}: there is no {error}, which names the stream") from error
    except (ValueError, BadEvent) as error:
        raise BadFile(f"{where}: {error}") from error
    return Line(number, name, event)


def _json_rows(raw: bytes, path: Path) -> Iterator[tuple[int, Mapping[str, object] | BadFile]]:
    for number, text in enumerate(raw.splitlines(), 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            yield number, BadFile(f"{path}:{number}: not JSON: {error}")
            continue
        yield number, row if isinstance(row, dict) else BadFile(f"{path}:{number}: not a JSON object")


def _csv_rows(raw: bytes, path: Path) -> Iterator[tuple[int, Mapping[str, object] | BadFile]]:
    try:
        reader = csv.DictReader(raw.decode("utf-8-sig").splitlines())
        for row in reader:
            if None in row or None in row.values():
                yield reader.line_num, BadFile(f"{path}:{reader.line_num}: not as many columns as the header")
            else:
                yield reader.line_num, dict(row)
    except (UnicodeDecodeError, csv.Error) as error:
        yield 0, BadFile(f"{path}: {error}")


def _event(origin: str, number: int, type_: str, data: Mapping[str, object]) -> NewEvent:
    return NewEvent(type_, json.dumps(data).encode(), b"", uuid5(_NAMESPACE, f"{origin}/{number}"))


def cents(dollars: object) -> int:
    """An amount in cents, exactly; 0 for what is no amount."""
    try:
        return int((Decimal(str(dollars)) * 100).to_integral_value())
    except (InvalidOperation, ValueError):
        return 0
