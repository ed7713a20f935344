"""Every error of geochain, in one tree.

    ChainError
    ├── BadInput              what was asked can't be done as it was asked
    │   ├── BadEvent          an event, stream name or batch breaks a rule of the log
    │   ├── BadConfig         chain.yaml can't be used
    │   └── BadFile           a file of the user's can't be read (an import, a playbook)
    ├── Refused               a guard said no; nothing was changed
    │   ├── Busy              another run or operator is at it
    │   ├── NotApproved       it needs an approval, which is not there, has expired, or was for another plan
    │   ├── Overtaken         another was first: the chain is not as it was when this was decided
    │   ├── Promised          a follower has promised its head not to be promoted for a while
    │   ├── LeaseLost         the lease is another's, or was renewed meanwhile
    │   └── WrongIdentity     a node bears another chain's or another node's name
    ├── WrongRevision         optimistic concurrency: the stream is not where the caller thought
    ├── NotHead               this node takes no writes; says who does, if it knows
    │   ├── Fenced            it was head and promised a newer epoch
    │   ├── LeaseExpired      it is head, but its lease ran out
    │   └── Restarted         it is head, but its server restarted within its reign
    ├── StaleLink             a batch or control word from an older epoch, another upstream, another tip
    ├── Diverged              two logs differ below the place where they should be equal
    ├── Corrupt               a log breaks its own rules: a hole, a wrong count
    ├── Unavailable           a peer can't be reached, or did not answer in time
    │   ├── NotPrepared       a store has no schema yet: its daemon makes it
    │   ├── OutcomeUnknown    the connection broke while a write was under way; retry with the same ids
    │   └── Overloaded        a client holds as many appends as it may; this one was not taken
    ├── TimedOut              a bounded wait ended; what was awaited did not happen
    │   └── NotYetReplicated  the head has the events, the nodes behind it not yet (in `chain.acks`)
    └── Different             a verification found differences

Each class carries what the caller needs to act: `retriable` (the one retry policy reads it),
`exit_code` (the command line ends with it), and each instance a `hint`: what to do now.
"""

from __future__ import annotations

from typing import ClassVar


class ChainError(Exception):
    """Something went wrong that geochain understands."""

    retriable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BadInput(ChainError):
    """What was asked can't be done as it was asked; nothing was changed."""

    exit_code = 2


class BadEvent(BadInput):
    """An event, a stream name or a batch breaks a rule of the log; nothing was written."""

    exit_code = 1


class BadConfig(BadInput):
    """The configuration can't be used. `message` names file, line and key."""


class BadFile(BadInput):
    """A file can't be used. `message` names the file and, where there is one, the line."""

    exit_code = 1


class Refused(ChainError):
    """A guard said no; nothing was changed."""

    exit_code = 3


class Busy(Refused):
    """Another run or another operator is at work on this chain."""


class NotApproved(Refused):
    """What was asked needs a person's approval, which is not there, has expired, or was for another plan."""

    exit_code = 4


class Overtaken(Refused):
    """Another was first: the chain, or the run, is not as it was when this was decided. Look again."""


class Promised(Refused):
    """The node has promised its head not to be promoted for a while: the head is alive."""

    retriable = True


class LeaseLost(Refused):
    """The lease is not what the caller thought: it was renewed, or taken, by another."""


class WrongIdentity(Refused):
    """A node bears the name of another chain or of another node."""


class WrongRevision(ChainError):
    """The stream is not at the expected revision. `current` is its last revision, -1 if it has none."""

    def __init__(self, message: str, *, current: int = -1, hint: str = "") -> None:
        super().__init__(message, hint=hint or "read the stream again, decide again, append again")
        self.current = current


class NotHead(ChainError):
    """This node takes no writes. `head` is the node it follows, if it knows one."""

    retriable = True

    def __init__(self, message: str, *, head: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint or "find the head: chainctl status")
        self.head = head


class Fenced(NotHead):
    """The node was head and has promised a newer epoch; it will not take writes in its old one."""


class LeaseExpired(NotHead):
    """The node is head, but its right to take writes has run out."""


class Restarted(NotHead):
    """The node is head, but its server restarted within this reign and may have gone back."""


class StaleLink(ChainError):
    """A batch or a control word came from an older epoch, another upstream, or for another tip."""

    retriable = True


class Diverged(ChainError):
    """Two logs differ where they should be equal."""


class Corrupt(ChainError):
    """A log breaks its own rules: a hole, a wrong count, an unreadable batch."""


class Unavailable(ChainError):
    """A peer can't be reached, or did not answer in time. Nothing is known to have changed."""

    retriable = True


class NotPrepared(Unavailable):
    """The store has no schema yet. Its daemon makes it when it starts."""


class OutcomeUnknown(Unavailable):
    """The connection broke while a write was under way: it may or may not have happened."""


class Overloaded(Unavailable):
    """A client holds as many appends as it may. Nothing of this one was sent."""


class TimedOut(ChainError):
    """A bounded wait ended before what was awaited came about; the work may still go on."""

    exit_code = 5


class Different(ChainError):
    """A verification found differences."""

    exit_code = 7
