"""The protocol of the lease, as modelled in `lease.pml`, holds its properties; broken variants are caught."""

from __future__ import annotations

import asyncio

import pytest

from tests.model.check import CHECKS, LIMIT_S, PROPERTIES, Check, missing, run

_QUICK = {"urgent", "no-wait", "fence-left"}
"""Checked every day: one that holds, one variant, one fault."""


def _param(check: Check) -> object:
    return pytest.param(check, id=check.name, marks=() if check.name in _QUICK else pytest.mark.long)


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("check", [_param(check) for check in CHECKS])
async def test_the_model_comes_out_as_expected(check: Check) -> None:
    outcome = await asyncio.to_thread(run, check)
    assert not outcome.trouble
    assert outcome.broken == check.breaks, "\n".join(outcome.steps)


def test_every_property_has_something_that_breaks_it() -> None:
    """A check that can't fail is a defect."""
    assert {check.breaks for check in CHECKS if check.breaks} == set(PROPERTIES)
