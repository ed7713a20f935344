"""How far each pair of the chain is verified: the verifier's word, or else what the nodes have noted."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import pairwise
from typing import Any, Final

import aiohttp
from pydantic import BaseModel

from chain.config import Config
from chain.errors import ChainError
from failover.fleet import Fleet, Observation
from replicator.verify import Verdict

LOOK_S: Final = 1.0


class PairLine(BaseModel):
    """Of what a verifier says of a pair on /v1/status, all that somebody goes by."""

    source: str
    target: str
    result: str
    verified: int
    age_s: float | None
    oldest_check_s: float | None
    what: str
    why: str


class _LateLine(BaseModel):
    node: str
    late: bool | None
    p99_s: float | None
    missing: int | None
    missing_s: float


class VerifierWord(BaseModel):
    """A verifier's word, as far as somebody goes by it."""

    pairs: list[PairLine]
    latency: list[_LateLine]
    silence: str = ""
    """Why there is no word, and what to do about it; empty if there is one."""


async def ask_verifier(config: Config) -> VerifierWord:
    """What the verifier at `verify.http` says; if nothing comes from there, why."""
    address = config.verify.http
    if address is None:
        return _silent("no verifier is known: set verify.http, and chainctl serve verifier")
    try:
        timeout = aiohttp.ClientTimeout(total=LOOK_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.get(f"http://{address}/v1/status") as response,
        ):
            return VerifierWord.model_validate(await response.json())
    except TimeoutError:
        return _silent(f"the verifier at {address} does not answer within {LOOK_S:g} s")
    except aiohttp.ClientConnectionError:
        return _silent(f"no verifier answers at {address}: start one: chainctl serve verifier")
    except (aiohttp.ClientError, ValueError):
        return _silent(f"what answers at {address} is no verifier: see verify.http")


def _silent(why: str) -> VerifierWord:
    return VerifierWord(pairs=[], latency=[], silence=why)


async def wait_verified(config: Config, *, wait_s: float) -> None:
    """Waits until the verifier can tell of every pair, or `wait_s`: what it can't is in its word."""
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            while True:
                lines = (await ask_verifier(config)).pairs
                if lines and all(line.result != Verdict.UNKNOWN.value for line in lines):
                    return
                await asyncio.sleep(0.1)


async def pairs(fleet: Fleet, seen: Observation, word: VerifierWord) -> list[dict[str, Any]]:
    """Each pair of members: what a verifier knows of it; without one, what the nodes have noted."""
    said = {(line.source, line.target): line for line in word.pairs}
    why = word.silence or "the verifier has not looked at this pair yet"
    lines = [said.get(pair) or await _noted(fleet, *pair, why) for pair in pairwise(seen.topology.order)]
    return [line.model_dump() for line in lines]


async def _noted(fleet: Fleet, source: str, target: str, why: str) -> PairLine:
    try:
        known = [await fleet.store(node).verified() for node in (source, target)]
    except ChainError as error:
        return _unknown(source, target, 0, None, error.message)
    oldest = [k.oldest_check_s for k in known if k.oldest_check_s is not None]
    return _unknown(source, target, min(k.position for k in known), max(oldest, default=None), why)


def _unknown(source: str, target: str, verified: int, oldest_s: float | None, why: str) -> PairLine:
    return PairLine(
        source=source,
        target=target,
        result=Verdict.UNKNOWN.value,
        verified=verified,
        age_s=None,
        oldest_check_s=oldest_s,
        what="",
        why=why,
    )
