"""What a fault proxy can do to a flow of bytes. The vocabulary is that of Toxiproxy.

A toxic is a value. What it remembers between two chunks is kept by who applies it (`failover.drills.proxy`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Flow(Enum):
    """A direction through a proxy, told by who opened the connection."""

    REQUESTS = "requests"
    """From who connected to who was connected to."""
    ANSWERS = "answers"
    """Back."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Everything arrives later, in order. Whatever is under way is under way at the same time."""

    delay_s: float
    jitter_s: float = 0.0
    """Each chunk takes up to so much more or less."""


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """All connections of the flow together get so many bytes a second."""

    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Slicer:
    """A slow drip: small pieces, with a pause after each."""

    size: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing gets through while it lasts; all of it comes when it ends, as packets sent again would."""


@dataclass(frozen=True, slots=True)
class Timeout:
    """A black hole: connections are taken, what they carry vanishes, and they break when it ends."""

    after_s: float | None = None
    """They break after so long already."""


@dataclass(frozen=True, slots=True)
class ResetPeer:
    """Each connection is reset once it has carried something for so long."""

    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LimitData:
    """Each connection ends once it has carried so many bytes."""

    bytes: int


@dataclass(frozen=True, slots=True)
class Corrupt:
    """One byte in so many, on an average, arrives with one bit turned."""

    every_bytes: int


@dataclass(frozen=True, slots=True)
class SlowClose:
    """The end of a connection is told so much later."""

    delay_s: float


Toxic = Latency | Bandwidth | Slicer | Hold | Timeout | ResetPeer | LimitData | Corrupt | SlowClose
