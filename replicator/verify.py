"""Out-of-band verification: equal digests of every segment mean equal logs; a difference is bisected.

Each node computes its digests from its own rows; only digests travel. The result is OK, DIFF or UNKNOWN:
what could not be checked is never OK.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Final

from chain.errors import ChainError
from chain.event import Position
from chain.store import Store

SEGMENT: Final = 16_384
MAX_REPORTED: Final = 20


class Verdict(Enum):
    """What a verification found."""

    OK = "OK"
    """Every event in the range is on both nodes, equal in every column, at the same position."""
    DIFF = "DIFF"
    """At least one position differs; they are named."""
    UNKNOWN = "UNKNOWN"
    """Something could not be read, so nothing is claimed."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Two neighbours compared: from `first` to `last`, both inclusive."""

    source: str
    target: str
    verdict: Verdict
    first: Position
    last: Position
    source_tip: Position
    target_tip: Position
    differing: tuple[Position, ...] = ()
    """The first MAX_REPORTED positions that differ."""
    reason: str = ""


async def verify_chain(
    stores: Mapping[str, Store], *, first: Position = Position(1), last: Position | None = None
) -> tuple[Verified, ...]:
    """Compares every neighbouring pair of `stores`, given head first."""
    names = list(stores)
    return tuple(
        [await verify_pair(a, stores[a], b, stores[b], first=first, last=last) for a, b in pairwise(names)]
    )


async def verify_pair(
    source_name: str,
    source: Store,
    target_name: str,
    target: Store,
    *,
    first: Position = Position(1),
    last: Position | None = None,
) -> Verified:
    """Compares the logs of two nodes over the range that both have, up to `last` if given.

    A range that one of them does not have yet is UNKNOWN only if `last` asks for it. Raises nothing.
    """
    source_tip = target_tip = Position(0)
    try:
        # The target first: then what it had, the source had too, unless the two differ.
        target_tip = (await target.tip()).position
        source_tip = (await source.tip()).position
        end = Position(min(source_tip, target_tip) if last is None else last)
        if last is not None and min(source_tip, target_tip) < last:
            behind = source_name if source_tip < last else target_name
            return Verified(
                source_name,
                target_name,
                Verdict.UNKNOWN,
                first,
                end,
                source_tip,
                target_tip,
                reason=f"{behind} has not come to {last} yet",
            )
        if first > source_tip and first > target_tip and first > 1 and last is None:
            reason = f"neither has come to {first} yet"
            return Verified(
                source_name, target_name, Verdict.UNKNOWN, first, end, source_tip, target_tip, reason=reason
            )
        differing: list[Position] = []
        if target_tip > source_tip and last is None:
            differing.append(Position(source_tip + 1))
        for start in range(first, end + 1, SEGMENT):
            stop = Position(min(start + SEGMENT - 1, end))
            await _differences(source, target, Position(start), stop, differing)
    except ChainError as error:
        return Verified(
            source_name,
            target_name,
            Verdict.UNKNOWN,
            first,
            last or min(source_tip, target_tip),
            source_tip,
            target_tip,
            reason=error.message,
        )
    verdict = Verdict.DIFF if differing else Verdict.OK
    return Verified(
        source_name, target_name, verdict, first, end, source_tip, target_tip, tuple(sorted(differing))
    )


async def _differences(
    source: Store, target: Store, first: Position, last: Position, found: list[Position]
) -> None:
    """Adds the positions of the range that differ, by halving it; at most MAX_REPORTED."""
    if len(found) >= MAX_REPORTED:
        return
    ours, theirs = await asyncio.gather(source.digest(first, last), target.digest(first, last))
    whole = last - first + 1
    if ours.value == theirs.value and ours.count == theirs.count == whole:
        return
    if first == last:
        found.append(first)
        return
    middle = Position((first + last) // 2)
    await _differences(source, target, first, middle, found)
    await _differences(source, target, Position(middle + 1), last, found)
