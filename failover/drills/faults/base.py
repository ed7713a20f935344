"""What all faults have in common."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from failover.document import Closed
from failover.drills.ground import Ground, Need, Undos

Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Party = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
"""A node, by its name or its place (`head`, `middle`, `tail`; `first-head`, … as at the beginning); a region
(or `home`, `head-region`), `registry`, `controllers` or one of them, `client`, `operator`, `everyone`."""
Parties = Annotated[tuple[Party, ...], Field(min_length=1)]


class Fault(Closed):
    """Something that goes wrong on purpose. Its kind is its name; what it says of itself is its docstring."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")] | None = None
    """How an `end` calls it; else its kind."""
    for_s: Seconds | None = None
    """Taken back after so long; else by an `end`, or when the method is over."""

    async def inject(self, ground: Ground, undos: Undos) -> str:
        """Does it, and says to whom. What takes it back is in `undos` before anything was done."""
        raise NotImplementedError


class LocalFault(Fault):
    needs = frozenset({Need.LOCAL})


class WireFault(Fault):
    needs = frozenset({Need.NETWORK})
