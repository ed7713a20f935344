"""The purchases of the demo, and files of events of the user's own.

A line becomes one event with an id that follows from the file and the line, so that an import that was
killed can be run again: what is stored already is not stored twice.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import json
import re
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
_CSV_KEYS: Final = frozenset({"stream", "type"})
_JSON_KEYS: Final = _CSV_KEYS | {"data", "metadata", "id"}
_MAX_DIGITS: Final = 18


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
        name = _text(row, "stream") if "stream" in row else _filled(stream, row)
        kind = _text(row, "type") if "type" in row else type_
        # In a CSV file every other column is data, whatever its name.
        keys = _CSV_KEYS if path.suffix.lower() == ".csv" else _JSON_KEYS
        own = {k: v for k, v in row.items() if k in keys}
        data = own.get("data", {k: v for k, v in row.items() if k not in keys})
        given, meta = own.get("id"), own.get("metadata")
        ident = UUID(str(given)) if given else uuid5(_NAMESPACE, f"{origin}/{number}")
        event = NewEvent(kind, _json(data), b"" if meta is None else _json(meta), ident)
        check_append(name, [event])
    except KeyError as error:
        raise BadFile(f"{where}: there is no {error}, which names the stream") from error
    except (ValueError, RecursionError, BadEvent) as error:
        raise BadFile(f"{where}: {error}") from error
    return Line(number, name, event)


def _filled(template: str, row: Mapping[str, object]) -> str:
    """The template with each {column} replaced. Not `str.format`, which would also reach into objects."""
    return re.sub(r"\{([^{}]*)\}", lambda found: str(row[found[1]]), template)


def _text(row: Mapping[str, object], key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise ValueError(f"{key} is no text")
    return value


def _json(value: object) -> bytes:
    """Raises ValueError for a number too large for a float, which JSON could not hold either."""
    return json.dumps(value, allow_nan=False).encode()


def _json_rows(raw: bytes, path: Path) -> Iterator[tuple[int, Mapping[str, object] | BadFile]]:
    for number, text in enumerate(raw.removeprefix(codecs.BOM_UTF8).splitlines(), 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text.decode())
        except (ValueError, RecursionError) as error:
            yield number, BadFile(f"{path}:{number}: not JSON: {error}")
            continue
        yield number, row if isinstance(row, dict) else BadFile(f"{path}:{number}: not a JSON object")


def _csv_rows(raw: bytes, path: Path) -> Iterator[tuple[int, Mapping[str, object] | BadFile]]:
    # Bytes that are not UTF-8 are carried along as surrogates, so that they spoil only their own line.
    text = raw.decode("utf-8-sig", errors="surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    while True:
        fault = ""
        try:
            row = next(reader)
            ",".join(row).encode()
        except StopIteration:
            return
        except UnicodeEncodeError:
            fault = "not UTF-8"
        except csv.Error as error:
            fault = str(error)
        else:
            if not row:
                continue
            if header and len(row) != len(header):
                fault = f"{len(row)} columns, where the header has {len(header)}"
            elif not header and len(set(row)) < len(row):
                fault = "the header names a column twice"
        where = f"{path}:{reader.line_num}"
        if not header:
            if fault:
                raise BadFile(f"{where}: {fault}")
            header = row
        else:
            yield (
                reader.line_num,
                BadFile(f"{where}: {fault}") if fault else dict(zip(header, row, strict=True)),
            )


def _event(origin: str, number: int, type_: str, data: Mapping[str, object]) -> NewEvent:
    return NewEvent(type_, json.dumps(data).encode(), b"", uuid5(_NAMESPACE, f"{origin}/{number}"))


def cents(dollars: object) -> int:
    """An amount in cents, exactly; 0 for what is no amount."""
    try:
        amount = Decimal(str(dollars))
    except (InvalidOperation, ValueError):
        return 0
    if not amount.is_finite() or amount.adjusted() > _MAX_DIGITS:
        return 0
    return int((amount * 100).to_integral_value())
