"""What a checker can find: the kinds of anomaly, each with what it breaks, and a finding with its proof."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from failover.drills.history import Followed, Read, Seen, Write


class Kind(Enum):
    """What is wrong. Each kind breaks a promise that the member's sentence states."""

    LOST = "lost"
    """An acknowledged event is in the log or, with its place, in the ledger (L7)."""
    ONLY_IN_LEDGER = "only in the ledger"
    """What was acknowledged by a region or the chain stays in the log; no failover takes it out."""
    NOT_ON_NODE = "not on a promised node"
    """What the chain acknowledged is on every member, what a region did on a member elsewhere."""
    MOVED = "moved"
    """An event keeps the place that was acknowledged, for life (L6)."""
    SAME_PLACE = "one place for two events"
    """No place is acknowledged for two events."""
    DUPLICATED = "duplicated"
    """An event is stored once, however often it was sent."""
    NEVER_WRITTEN = "never written"
    """What is in the log was appended by somebody."""
    ALTERED = "altered"
    """An event is what its writer sent, wherever it is read."""
    APPEARED = "refused, and there"
    """A refused append leaves nothing behind."""
    TORN = "torn"
    """The events of an append are all there or none, one behind the other."""
    WRONG_REVISION = "at another revision than expected"
    """An append at an expected revision is right behind it, or nowhere."""
    REORDERED = "reordered"
    """An append that was answered before another began is before it in the log."""
    BROKEN_LOG = "broken log"
    """Positions and revisions have no holes (L1), and epochs never fall."""
    DIFFERENT_LOGS = "different logs"
    """A member's log is the head's, as far as it goes, bit for bit (L3)."""
    STALE_TOKEN = "stale beyond its token"
    """A read that asks for a token sees all of its stream up to that event."""
    STALE_LATEST = "not the latest"
    """A read of the latest sees every append that was answered before it began."""
    WENT_BACK = "went back"
    """A reader or follower is given revisions and positions in order, none twice."""
    SKIPPED = "skipped"
    """A reader or follower is given all revisions and positions, none left out."""
    TAKEN_AWAY = "taken away from the tail"
    """What the tail showed stays in the log, at its place."""
    VANISHED = "read, and nowhere"
    """What was read anywhere is in the log or the ledger."""


Proof = Write | Read | Followed | Seen


@dataclass(frozen=True, slots=True)
class Finding:
    """An anomaly, with what proves it: calls and answers, and events as they finally are."""

    kind: Kind
    text: str
    proof: tuple[Proof, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.text}"
