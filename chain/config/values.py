"""The scalar types of `chain.yaml`: names, durations, sizes, addresses.

Each is a validator that reads the text of the file (ValueError says what is wrong and what to
write), a serializer back to that text, and its JSON Schema.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema

from chain.config.dsn import Dsn

MAX_DURATION_S: Final = 24 * 3600.0
MAX_BATCH_BYTES: Final = 64 * 1024**2

_NAME = r"[a-z][a-z0-9-]{0,62}"
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,6})?"
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_BYTES: Final = {"GB": 1024**3, "MB": 1024**2, "kB": 1024, "B": 1}


class Address(str):
    """`host:port`, with its two parts."""

    __slots__ = ()

    @property
    def host(self) -> str:
        """Without the brackets of an IPv6 address."""
        return self.rpartition(":")[0].removeprefix("[").removesuffix("]")

    @property
    def port(self) -> int:
        return int(self.rpartition(":")[2])


def quoted(text: str) -> str:
    """The text on one line and not too long, for a message."""
    return repr(text if len(text) <= 60 else text[:59] + "…")


def parse_name(value: object) -> str:
    text = _text(value, "a name")
    if not re.fullmatch(_NAME, text):
        raise ValueError(
            f"{quoted(text)} is not a name: a letter, then letters, digits and '-', "
            "all lower case, 63 at most"
        )
    return text


def parse_duration(value: object) -> float:
    """`250ms`, `30s`, `5m`, `1h` as seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    text = _text(value, "a duration such as 30s")
    if re.fullmatch(_NUMBER, text):
        raise ValueError(f"{text!r} has no unit; write {text}s, {text}ms, {text}m or {text}h")
    match = re.fullmatch(f"({_NUMBER})(ms|s|m|h)", text)
    if match is None:
        raise ValueError(f"{quoted(text)} is not a duration; write such as 250ms, 30s, 5m or 1h")
    number, unit = float(match[1]), match[2]
    seconds = number / 1000 if unit == "ms" else number * _SECONDS[unit]
    if not 0.001 <= seconds <= MAX_DURATION_S:
        raise ValueError(f"{text!r} is outside 1ms to {format_duration(MAX_DURATION_S)}")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back: the largest unit that divides evenly."""
    for unit in ("h", "m", "s"):
        count, rest = divmod(seconds, _SECONDS[unit])
        if count and not rest:
            return f"{count:.0f}{unit}"
    return f"{round(seconds * 1000, 6):.6f}".rstrip("0").rstrip(".") + "ms"


def parse_size(value: object) -> int:
    """`64kB`, `8MB`, `1GB` as bytes; the units are Postgres's, powers of 1024."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    text = _text(value, "a size such as 8MB")
    if re.fullmatch(_NUMBER, text):
        raise ValueError(f"{text!r} has no unit; write {text}MB, {text}kB or {text}B")
    match = re.fullmatch("([0-9]{1,15})(B|kB|MB|GB)", text)
    if match is None:
        raise ValueError(f"{quoted(text)} is not a size; write such as 64kB, 8MB or 1GB")
    return int(match[1]) * _BYTES[match[2]]


def parse_batch_size(value: object) -> int:
    size = parse_size(value)
    if not 1024 <= size <= MAX_BATCH_BYTES:
        raise ValueError(
            f"{format_size(size)} is outside {format_size(1024)} to {format_size(MAX_BATCH_BYTES)}"
        )
    return size


def format_size(size: int) -> str:
    unit = next(unit for unit, factor in _BYTES.items() if size % factor == 0)
    return f"{size // _BYTES[unit]}{unit}" if size else "0B"


def parse_address(value: object) -> Address:
    text = _text(value, "an address such as 127.0.0.1:8001")
    match = re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", text)
    if match is None:
        raise ValueError(f"{quoted(text)} is not host:port, such as 127.0.0.1:8001")
    if not 1 <= int(match[1]) <= 65535:
        raise ValueError(f"{quoted(text)} has a port outside 1 to 65535")
    return Address(text)


def parse_dsn(value: object) -> Dsn:
    return value if isinstance(value, Dsn) else Dsn.parse(_text(value, "a DSN"))


def parse_path(value: object) -> str:
    text = _text(value, "the name of a file")
    if not text:
        raise ValueError("should be the name of a file")
    return text


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"should be {what}")
    return value


def _pattern(pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "examples": [*examples]})


Name = Annotated[str, BeforeValidator(parse_name), _pattern(_NAME, "east-1")]
FilePath = Annotated[str, BeforeValidator(parse_path)]
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    _pattern(rf"{_NUMBER}(ms|s|m|h)", "250ms", "30s", "5m"),
]
BatchSize = Annotated[
    int,
    BeforeValidator(parse_batch_size),
    PlainSerializer(format_size, return_type=str, when_used="json"),
    _pattern("[0-9]{1,15}(B|kB|MB|GB)", "64kB", "8MB"),
]
HttpAddress = Annotated[
    Address,
    PlainValidator(parse_address),
    PlainSerializer(str, return_type=str, when_used="json"),
    _pattern(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}", "127.0.0.1:8001"),
]
DatabaseDsn = Annotated[
    Dsn,
    PlainValidator(parse_dsn),
    PlainSerializer(str, return_type=str),  # always: no dump of a model takes a Dsn apart
    _pattern("postgres(ql)?://.+/.+", "postgresql://geochain@127.0.0.1:5432/east"),
]
