"""What goes wrong between parties. `between` is both ways; `source` to `target` is one way."""

from __future__ import annotations

import asyncio
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from chain.tasks import end
from failover.drills.faults.base import Parties, Party, Seconds, WireFault
from failover.drills.ground import Ground, Undos
from failover.drills.network import Lane, Wire, apply, lift
from failover.drills.toxics import (
    Bandwidth,
    Corrupt,
    Hold,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
    Toxic,
)

Factor = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Between(WireFault):
    """Done to all bytes between two groups of parties."""

    between: Annotated[tuple[Parties, Parties], Field(min_length=2, max_length=2)]
    says: ClassVar[str] = "↔"

    async def lanes(self, ground: Ground) -> list[Lane]:
        some, others = [await ground.parties(*names) for names in self.between]
        return [*ground.wires.lanes(some, others - some), *ground.wires.lanes(others - some, some)]

    async def wires(self, ground: Ground) -> list[Wire]:
        some, others = [await ground.parties(*names) for names in self.between]
        return ground.wires.between(some, others - some)

    async def inject(self, ground: Ground, undos: Undos) -> str:
        lanes, toxic = await self.lanes(ground), self.toxic()

        async def heal() -> None:
            lift(lanes, toxic)

        undos.add(f"heal {self}", heal)
        apply(lanes, toxic)
        return str(self)

    def toxic(self) -> Toxic:
        raise NotImplementedError

    def __str__(self) -> str:
        return f" {self.says} ".join("+".join(names) for names in self.between)


class Partition(_Between):
    """Nothing gets through between them, either way; what was under way arrives when it heals."""

    fault: Literal["partition"]

    def toxic(self) -> Toxic:
        return Hold()


class OneWayDrop(WireFault):
    """Nothing gets through from one to the other; the other way is open."""

    fault: Literal["one-way-drop"]
    source: Parties
    target: Parties

    async def inject(self, ground: Ground, undos: Undos) -> str:
        sources, targets = await ground.parties(*self.source), await ground.parties(*self.target)
        lanes = ground.wires.lanes(sources, targets - sources)

        async def heal() -> None:
            lift(lanes, Hold())

        what = f"{'+'.join(self.source)} → {'+'.join(self.target)}"
        undos.add(f"heal {what}", heal)
        apply(lanes, Hold())
        return what


class SlowLink(_Between):
    """Every byte takes longer, each way; with jitter, by more or less."""

    fault: Literal["latency"]
    delay_s: Seconds
    jitter_s: Seconds = 0.0

    def toxic(self) -> Toxic:
        return Latency(self.delay_s, self.jitter_s)


class NarrowLink(_Between):
    """So many bits a second, each way, for each pair of parties."""

    fault: Literal["bandwidth"]
    mbit_per_s: Factor

    def toxic(self) -> Toxic:
        return Bandwidth(self.mbit_per_s * 125_000)


class SlowDrip(_Between):
    """Bytes come in small pieces, each a little after the last."""

    fault: Literal["slow-drip"]
    bytes: Annotated[int, Field(ge=1)] = 64
    delay_s: Seconds = 0.005

    def toxic(self) -> Toxic:
        return Slicer(self.bytes, self.delay_s)


class BlackHole(_Between):
    """Connections are taken, and what they carry vanishes; they break when it ends."""

    fault: Literal["black-hole"]

    def toxic(self) -> Toxic:
        return Timeout()


class ResetConnections(_Between):
    """Every connection is reset, now, and each new one once it has carried something for so long."""

    fault: Literal["reset"]
    after_s: Seconds = 0.5

    async def inject(self, ground: Ground, undos: Undos) -> str:
        said = await super().inject(ground, undos)
        for wire in await self.wires(ground):
            wire.proxy.reset_all()
        return said

    def toxic(self) -> Toxic:
        return ResetPeer(self.after_s)


class LimitedConnections(_Between):
    """Connections end once they have carried so many bytes."""

    fault: Literal["limit-data"]
    bytes: Annotated[int, Field(ge=1)]

    def toxic(self) -> Toxic:
        return LimitData(self.bytes)


class CorruptLink(_Between):
    """One byte in so many arrives with a bit turned: a bad card, and no TLS."""

    fault: Literal["corrupt"]
    every_bytes: Annotated[int, Field(ge=1)]

    def toxic(self) -> Toxic:
        return Corrupt(self.every_bytes)


class SlowEnd(_Between):
    """The end of a connection is told late."""

    fault: Literal["slow-close"]
    delay_s: Seconds

    def toxic(self) -> Toxic:
        return SlowClose(self.delay_s)


class RefusedConnections(_Between):
    """Connections between them are refused, and open ones reset: a firewall that says no."""

    fault: Literal["refuse"]

    async def inject(self, ground: Ground, undos: Undos) -> str:
        wires = await self.wires(ground)

        async def heal() -> None:
            for wire in wires:
                await wire.proxy.set_down(False)

        undos.add(f"heal {self}", heal)
        for wire in wires:
            await wire.proxy.set_down(True)
        return str(self)


class Flapping(_Between):
    """Nothing gets through, then everything, again and again."""

    fault: Literal["flapping"]
    up_s: Factor = 1.0
    down_s: Factor = 1.0

    async def inject(self, ground: Ground, undos: Undos) -> str:
        lanes = await self.lanes(ground)

        async def flap() -> None:
            while True:
                apply(lanes, Hold())
                try:
                    await asyncio.sleep(self.down_s * ground.chance.uniform(0.7, 1.3))
                finally:
                    lift(lanes, Hold())
                await asyncio.sleep(self.up_s * ground.chance.uniform(0.7, 1.3))

        flapping = asyncio.create_task(flap(), name=f"flapping {self}")

        async def heal() -> None:
            await end(flapping)

        undos.add(f"heal {self}", heal)
        return str(self)


class WrongNode(WireFault):
    """The address of one node leads to another: a wrong DNS record, a restored address."""

    fault: Literal["wrong-node"]
    target: Party
    leads_to: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        target, other = await ground.node(self.target), await ground.node(self.leads_to)
        wires = [w for w in ground.wires.wires if w.target == target and w.service == "store"]
        right, wrong = ground.config.node(target).dsn, ground.config.node(other).dsn

        async def heal() -> None:
            for wire in wires:
                wire.proxy.upstream = (right.host, right.port)
                wire.proxy.reset_all()

        undos.add(f"let the address of {target} lead to it again", heal)
        for wire in wires:
            wire.proxy.upstream = (wrong.host, wrong.port)
            wire.proxy.reset_all()
        return f"{target} leads to {other}"
