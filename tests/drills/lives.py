"""Lives of a chain that does everything right, as histories: what the checker must find nothing in.

A chain of logs and a few processes, moved step by step by a random number generator: appends that are under
way while others are, answers that get lost, retries, followers and readers anywhere, heads that are lost with
what they had alone, rejoin, requeues. Between two steps passes one second.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from uuid import UUID

from chain.acks import Ack
from chain.event import Appended, Epoch, Expect, Expected, Position, Revision, Tip
from failover.drills.history import Content, Final, Followed, History, Read, Result, Seen, Write

PREFIX = "drill/"
REGIONS = {"a": "east", "b": "west", "c": "east"}
STREAMS = (f"{PREFIX}one", f"{PREFIX}two")
HOLDS_BACK = 50


@dataclass(slots=True)
class Pending:
    """An append under way."""

    process: str
    invoked_s: float
    stream: str
    expected: Expected
    contents: tuple[Content, ...]
    ack: Ack
    head: str
    appended: Appended | None = None
    refused: str = ""


@dataclass(slots=True)
class Life:
    """One life. `history` and `final` are what the checker is given of it."""

    random: Random
    processes: int = 3
    now: float = 0.0
    order: list[str] = field(default_factory=lambda: ["a", "b", "c"])
    epoch: int = 1
    logs: dict[str, list[Seen]] = field(default_factory=lambda: {"a": [], "b": [], "c": []})
    pending: dict[str, Pending] = field(default_factory=dict)
    late: list[Pending] = field(default_factory=list)
    """Their callers gave up; they may still arrive at the head that they were sent to."""
    again: dict[str, tuple[str, Expected, tuple[Content, ...], Ack]] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    followed: list[Followed] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=lambda: {"tail": 1, "any": 1})
    sessions: dict[str, int] = field(default_factory=lambda: {"tail": 0, "any": 0})
    ledger: list[Seen] = field(default_factory=list)
    requeued: set[UUID] = field(default_factory=set)
    made: int = 0

    def __post_init__(self) -> None:
        start = self._content(f"{PREFIX}start")
        self._store("a", f"{PREFIX}start", start)
        told = Appended(Position(1), Position(1), Revision(0), Epoch(1), False)
        call = ("start", 0.0, 1.0, Result.OK, "")
        self.writes.append(Write(*call, f"{PREFIX}start", Expect.ANY, (start,), Ack.CHAIN, told))
        for node in ("b", "c"):
            self.logs[node] = list(self.logs["a"])
        self.now = 1.0

    def run(self, steps: int) -> Life:
        acts = (self.begin, self.arrive, self.answer, self.lose, self.replicate, self.read, self.follow)
        for _ in range(steps):
            self.now += 1
            self.random.choices(
                (*acts, self.fail_over, self.rejoin, self.requeue), (9, 9, 9, 2, 12, 4, 6, 1, 1, 1)
            )[0]()
        self.now += 1
        while len(self.order) < 3:
            self.rejoin()
        for process in list(self.pending):
            self._end(process, Result.UNKNOWN, "broken off", ended=False)
        for _ in range(2 * len(self.logs["a"]) + 100):
            self.replicate()
        self.follow()
        return self

    def history(self) -> History:
        start = Tip(Position(1), Epoch(1))
        return History(PREFIX, start, tuple(self.writes), tuple(self.reads), tuple(self.followed))

    def final(self) -> Final:
        logs = {node: tuple(log) for node, log in self.logs.items()}
        return Final(tuple(self.order), REGIONS, logs, tuple(self.ledger), frozenset(self.requeued))

    # What may happen.

    def begin(self) -> None:
        process = f"writer-{self.random.randrange(self.processes)}"
        if process in self.pending:
            return
        if process in self.again and self.random.random() < 0.7:
            stream, expected, contents, ack = self.again.pop(process)
        else:
            stream = self.random.choice(STREAMS)
            contents = tuple(self._content(stream) for _ in range(self.random.randint(1, 3)))
            known = self.random.choice((0, 1, 1)) + self._revision(self.order[0], stream) - 1
            exact: Expected = Revision(known) if known >= 0 else Expect.NO_STREAM
            expected = self.random.choice((Expect.ANY, exact))
            ack = self.random.choice(tuple(Ack))
        self.pending[process] = Pending(process, self.now, stream, expected, contents, ack, self.order[0])

    def arrive(self) -> None:
        waiting = [p for p in (*self.pending.values(), *self.late) if not p.appended and not p.refused]
        if not waiting:
            return
        append = self.random.choice(waiting)
        if append.head != self.order[0]:
            return  # fenced
        log = self.logs[append.head]
        there = [event for event in log if event.content in append.contents]
        last = self._revision(append.head, append.stream)
        number = append.expected.value if isinstance(append.expected, Expect) else append.expected
        if there:
            run = [there[0].position + n for n in range(len(append.contents))]
            same = [event.content for event in there] == list(append.contents)
            if not same or [event.position for event in there] != run:
                append.refused = "a partial repeat"
                return
            append.appended = _told(there, repeated=True)
        elif number in (Expect.ANY.value, last):
            stored = [self._store(append.head, append.stream, content) for content in append.contents]
            append.appended = _told(stored, repeated=False)
        else:
            append.refused = f"at revision {last}"

    def answer(self) -> None:
        ready = [p for p in self.pending.values() if p.refused or (p.appended and self._reached(p))]
        if ready:
            append = self.random.choice(ready)
            result = Result.FAILED if append.refused else Result.OK
            self._end(append.process, result, append.refused)

    def lose(self) -> None:
        """A caller gives up on an answer."""
        if not self.pending:
            return
        process = self.random.choice(list(self.pending))
        append = self.pending[process]
        if append.refused:
            return
        self.again[process] = (append.stream, append.expected, append.contents, append.ack)
        if append.appended is None:
            self.late.append(replace(append))
        elif self._there(append) and self.random.random() < 0.5:
            self._end(process, Result.UNKNOWN, "not yet replicated")
            return
        append.appended = None
        self._end(process, Result.UNKNOWN, "no answer", ended=self.random.random() < 0.7)

    def replicate(self) -> None:
        index = self.random.randrange(1, len(self.order)) if len(self.order) > 1 else 0
        if index:
            source, target = self.logs[self.order[index - 1]], self.logs[self.order[index]]
            target += source[len(target) : len(target) + self.random.randint(1, 4)]

    def fail_over(self) -> None:
        """The head is lost, with what it had alone. One loss at a time: a region is a copy, not two."""
        if len(self.order) < 3:
            return
        lost, head = self.order[:2]
        self.order = self.order[1:]
        self.epoch += 1
        self._store(head, "$epoch", self._content("$epoch"))
        for process, append in list(self.pending.items()):
            if append.head == lost and not append.refused:
                self.again[process] = (append.stream, append.expected, append.contents, append.ack)
                append.appended = None
                self._end(process, Result.UNKNOWN, "the head is lost")

    def rejoin(self) -> None:
        """A lost node comes back: its dead branch goes to the ledger, and it becomes the tail.

        By then the others have come to the head's tip: one loss has healed before the next one comes.
        """
        lost = next((node for node in REGIONS if node not in self.order), None)
        if lost is None:
            return
        head = self.logs[self.order[0]]
        shared = next(
            (n for n, (a, b) in enumerate(zip(self.logs[lost], head, strict=False)) if a != b), None
        )
        shared = min(len(self.logs[lost]), len(head)) if shared is None else shared
        for event in self.logs[lost][shared:]:
            if event.stream != "$ledger":
                self.ledger.append(event)
            self._store(self.order[0], "$ledger", self._content("$ledger"))
        self.order.append(lost)
        for node in self.order[1:]:
            self.logs[node] = list(head)

    def requeue(self) -> None:
        head = self.order[0]
        there = {event.content.id for event in self.logs[head]}
        dead = [e for e in self.ledger if e.content.id not in there and e.stream.startswith(PREFIX)]
        if dead:
            event = self.random.choice(dead)
            self.requeued.add(event.content.id)
            self._store(head, event.stream, event.content)

    def read(self) -> None:
        """At any node; not to the end, at times."""
        latest = self.random.random() < 0.4
        node = self.order[0] if latest else self.random.choice(self.order)
        stream = self.random.choice(STREAMS)
        told = [w for w in self.writes if w.appended and w.stream == stream and w.acknowledged]
        token = self.random.choice(told).appended if told and self.random.random() < 0.7 else None
        log = self.logs[node]
        at_least = token.token if token is not None else None
        if at_least is not None and not any(e.place == at_least for e in log):
            at_least = None
        revision = self.random.randint(0, 3)
        events = [event for event in log if event.stream == stream and event.revision >= revision]
        given = tuple(events[: self.random.choice((2, HOLDS_BACK))])
        next_ = given[-1].revision + 1 if given else revision
        call = (f"reader-{self.random.randrange(2)}", self.now, self.now + 0.5, Result.OK, "")
        at_tip = len(given) == len(events)
        self.reads.append(Read(*call, stream, revision, at_least, latest, node, given, next_, at_tip))

    def follow(self) -> None:
        name = self.random.choice(("tail", "any"))
        node = self.order[-1] if name == "tail" else self.random.choice(self.order)
        log = self.logs[node]
        place = self.places[name]
        behind = self._followed_last(name)
        if behind is not None and (place > len(log) or log[place - 1] != behind):
            if place <= len(log) or node == self.order[0]:  # diverged: it begins anew
                self.sessions[name] += 1
                self.places[name] = 1
            return
        page = tuple(log[place : place + self.random.randint(1, 5)])
        if page:
            self.places[name] = page[-1].position
            tail = name == "tail" and len(self.order) > 1
            self.followed.append(Followed(name, self.sessions[name], self.now, node, tail, page))

    # How it is done.

    def _content(self, stream: str) -> Content:
        self.made += 1
        return Content(UUID(int=self.made), f"{stream}:{self.made}".encode())

    def _store(self, node: str, stream: str, content: Content) -> Seen:
        event = Seen(len(self.logs[node]) + 1, self.epoch, stream, self._revision(node, stream) + 1, content)
        self.logs[node].append(event)
        return event

    def _revision(self, node: str, stream: str) -> int:
        return max((event.revision for event in self.logs[node] if event.stream == stream), default=-1)

    def _there(self, append: Pending) -> bool:
        return append.head == self.order[0]

    def _reached(self, append: Pending) -> bool:
        if not self._there(append) or append.appended is None:
            return False
        last = append.appended.last_position
        having = {node for node in self.order if len(self.logs[node]) >= last}
        if append.ack is Ack.CHAIN:
            return having == set(self.order)
        return append.ack is Ack.HEAD or len({REGIONS[node] for node in having}) > 1

    def _end(self, process: str, result: Result, error: str, *, ended: bool = True) -> None:
        p = self.pending.pop(process)
        call = (process, p.invoked_s, self.now if ended else None, result, error)
        self.writes.append(Write(*call, p.stream, p.expected, p.contents, p.ack, p.appended))

    def _followed_last(self, name: str) -> Seen | None:
        pages = [p for p in self.followed if (p.process, p.session) == (name, self.sessions[name])]
        return pages[-1].seen[-1] if pages else None


def _told(stored: list[Seen], *, repeated: bool) -> Appended:
    first, last = stored[0], stored[-1]
    return Appended(
        Position(first.position),
        Position(last.position),
        Revision(last.revision),
        Epoch(first.epoch),
        repeated,
    )
