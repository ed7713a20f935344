"""One small correct history, by hand, with something of everything in it: to plant defects into."""

from __future__ import annotations

from uuid import UUID

from chain.acks import Ack
from chain.event import Appended, Epoch, Expect, Expected, Position, Revision, Tip
from failover.drills.history import Content, Final, Followed, History, Read, Result, Seen, Write

PREFIX = "drill/"
X, Y = f"{PREFIX}x", f"{PREFIX}y"
REGIONS = {"a": "east", "b": "west", "c": "east"}


def content(name: str) -> Content:
    return Content(UUID(bytes=name.encode().rjust(16, b"\0")), name.encode())


def at(position: int, epoch: int, stream: str, revision: int, name: str) -> Seen:
    return Seen(position, epoch, stream, revision, content(name))


LOG = (
    at(1, 1, f"{PREFIX}start", 0, "start"),
    at(2, 1, X, 0, "x0"),
    at(3, 1, X, 1, "x1"),
    at(4, 1, Y, 0, "y0"),
    at(5, 1, X, 2, "x2"),
    at(6, 1, X, 3, "x3"),
    at(7, 1, Y, 1, "y1"),
    at(8, 1, Y, 2, "y2"),
    at(9, 2, "$epoch", 1, "reign"),
    at(10, 2, X, 4, "x4"),
    at(11, 2, "$ledger", 0, "entry"),
)
DEAD = at(9, 1, Y, 3, "dead")


def told(first: int, last: int, revision: int, epoch: int = 1) -> Appended:
    return Appended(Position(first), Position(last), Revision(revision), Epoch(epoch), False)


def write(
    begin_s: float,
    end_s: float,
    stream: str,
    names: str,
    ack: Ack = Ack.HEAD,
    answer: Appended | None = None,
    *,
    expected: Expected = Expect.ANY,
    result: Result = Result.OK,
) -> Write:
    contents = tuple(content(name) for name in names.split())
    error = "" if result is Result.OK else result.value
    return Write(stream[-1], begin_s, end_s, result, error, stream, expected, contents, ack, answer)


WRITES = (
    write(0, 1, f"{PREFIX}start", "start", Ack.CHAIN, told(1, 1, 0)),
    write(2, 3, X, "x0", Ack.HEAD, told(2, 2, 0), expected=Expect.NO_STREAM),
    write(4, 5, X, "x1", Ack.HEAD, told(3, 3, 1), expected=Revision(0)),
    write(4, 6, Y, "y0", Ack.REGION, told(4, 4, 0)),
    write(7, 8, X, "x2 x3", Ack.CHAIN, told(5, 6, 3)),
    write(7, 9, Y, "y1 y2", Ack.REGION, result=Result.UNKNOWN),
    write(10, 11, X, "refused", expected=Revision(7), result=Result.FAILED),
    write(12, 13, Y, "dead", Ack.HEAD, told(9, 9, 3)),
    write(20, 21, X, "x4", Ack.CHAIN, told(10, 10, 4, 2)),
)


def read(at_s: float, stream: str, *, at_least: Tip | None = None, latest: bool = False) -> Read:
    seen = tuple(event for event in LOG if event.stream == stream)
    call = ("reader", at_s, at_s + 1, Result.OK, "")
    return Read(*call, stream, 0, at_least, latest, None, seen, len(seen), True)


READS = (
    read(22, X, latest=True),
    read(24, X, at_least=Tip(Position(6), Epoch(1))),
    read(26, Y),
)


def page(process: str, at_s: float, first: int, last: int, *, tail: bool) -> Followed:
    return Followed(process, 0, at_s, "c", tail, LOG[first - 1 : last])


FOLLOWED = (
    page("tail", 10, 2, 8, tail=True),
    page("tail", 23, 9, 11, tail=True),
    page("any", 9, 2, 4, tail=False),
    page("any", 25, 5, 11, tail=False),
)
HISTORY = History(PREFIX, Tip(Position(1), Epoch(1)), WRITES, READS, FOLLOWED)
FINAL = Final(("b", "c", "a"), REGIONS, dict.fromkeys("abc", LOG), (DEAD,))
