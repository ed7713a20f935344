"""The closed list of faults. Each is a typed action that says how it is taken back before it is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, get_args

from pydantic import Discriminator

from failover.drills.faults.base import Fault
from failover.drills.faults.disks import (
    ClockJump,
    FullDisk,
    RestoreBackup,
    SaveBackup,
    WipeNode,
    can_mount,
    faketime,
)
from failover.drills.faults.links import (
    BlackHole,
    CorruptLink,
    Flapping,
    LimitedConnections,
    NarrowLink,
    OneWayDrop,
    Partition,
    RefusedConnections,
    ResetConnections,
    SlowDrip,
    SlowEnd,
    SlowLink,
    WrongNode,
)
from failover.drills.faults.processes import (
    DuplicateDaemon,
    FreezeController,
    FreezeDaemon,
    FreezeNode,
    FreezePostgres,
    FreezeRegion,
    FreezeRegistry,
    KillController,
    KillDaemon,
    KillNode,
    KillPostgres,
    KillRegion,
    KillRegistry,
    RestartPostgres,
    StopDaemon,
    StopPostgres,
)
from failover.drills.faults.stores import (
    AlteredRows,
    ConnectionsExhausted,
    ExtraRows,
    LongTransaction,
    MissingRows,
    SwappedRows,
    TerminatedBackends,
)
from failover.drills.ground import Need

AnyFault = Annotated[
    KillPostgres
    | StopPostgres
    | RestartPostgres
    | FreezePostgres
    | KillDaemon
    | StopDaemon
    | FreezeDaemon
    | DuplicateDaemon
    | KillNode
    | FreezeNode
    | KillRegion
    | FreezeRegion
    | KillController
    | FreezeController
    | KillRegistry
    | FreezeRegistry
    | Partition
    | OneWayDrop
    | SlowLink
    | NarrowLink
    | SlowDrip
    | BlackHole
    | ResetConnections
    | LimitedConnections
    | CorruptLink
    | SlowEnd
    | RefusedConnections
    | Flapping
    | WrongNode
    | TerminatedBackends
    | ConnectionsExhausted
    | LongTransaction
    | AlteredRows
    | MissingRows
    | ExtraRows
    | SwappedRows
    | SaveBackup
    | RestoreBackup
    | WipeNode
    | FullDisk
    | ClockJump,
    Discriminator("fault"),
]


def kind_of(fault: Fault | type[Fault]) -> str:
    """What a fault is called in a drill."""
    kind = fault if isinstance(fault, type) else type(fault)
    return str(get_args(kind.model_fields["fault"].annotation)[0])


FAULTS: Final[Mapping[str, type[Fault]]] = {kind_of(kind): kind for kind in get_args(get_args(AnyFault)[0])}
"""By what they are called."""


def missing(fault: Fault, *, local: bool, network: bool) -> Need | None:
    """What the fault needs and is not there; None if it can be done."""
    there = {
        Need.LOCAL: local,
        Need.NETWORK: network,
        Need.MOUNT: can_mount(),
        Need.FAKETIME: faketime() is not None,
    }
    return next((need for need in Need if need in fault.needs and not there[need]), None)


__all__ = ["FAULTS", "AnyFault", "Fault", "kind_of", "missing"]
