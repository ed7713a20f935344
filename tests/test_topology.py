"""What a topology asks of each node."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.errors import BadInput
from chain.event import Epoch, Position, Tip
from chain.store import Ground, Role
from chain.topology import Follow, Lead, Rest, Topology, assignment, frozen

PROMOTION = UUID(int=7)
GROUND = Ground(Tip(Position(9), Epoch(2)), datetime(2026, 1, 1, tzinfo=UTC))
NODES = ("east-1", "west-1", "east-2", "west-2", "east-3")

SHOP = Topology(
    chain="shop",
    regions=frozen({node: node.split("-")[0] for node in NODES}),
    home="east",
    epoch=Epoch(3),
    promotion=PROMOTION,
    order=("east-1", "west-1", "east-2"),
    ground=GROUND,
    joining=("west-2",),
)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    nodes = draw(st.permutations(NODES))
    members = draw(st.integers(1, len(nodes)))
    known = draw(st.integers(members, len(nodes)))
    return replace(SHOP, order=tuple(nodes[:members]), joining=tuple(nodes[members:known]))


class TestAssignment:
    def test_the_first_leads_in_the_epoch_it_was_granted(self) -> None:
        assert assignment(SHOP, "east-1") == Lead(Epoch(3), PROMOTION, GROUND, began=False)

    def test_a_head_is_told_whether_its_reign_was_taken_up_before(self) -> None:
        begun = replace(SHOP, began=Position(10))
        assert assignment(begun, "east-1") == Lead(Epoch(3), PROMOTION, GROUND, began=True)

    def test_a_middle_follows_the_node_before_it(self) -> None:
        assert assignment(SHOP, "west-1") == Follow(Epoch(3), "east-1", Role.MIDDLE)

    def test_the_last_is_the_tail(self) -> None:
        assert assignment(SHOP, "east-2") == Follow(Epoch(3), "west-1", Role.TAIL)

    def test_a_joining_node_follows_the_tail_and_is_no_member(self) -> None:
        assert assignment(SHOP, "west-2") == Follow(Epoch(3), "east-2", Role.TAIL)
        assert "west-2" not in SHOP.order

    def test_a_node_outside_rests(self) -> None:
        assert SHOP.detached == ("east-3",)
        assert SHOP.role("east-3") is Role.DETACHED
        assert assignment(SHOP, "east-3") == Rest(Epoch(3))

    def test_in_a_chain_of_one_the_head_leads_and_who_joins_follows_it(self) -> None:
        alone = replace(SHOP, order=("east-1",))
        assert alone.head == alone.tail == "east-1"
        assert alone.role("east-1") is Role.HEAD
        assert assignment(alone, "west-2") == Follow(Epoch(3), "east-1", Role.TAIL)

    def test_a_node_that_the_chain_never_had_has_no_role(self) -> None:
        with pytest.raises(BadInput, match="has no node 'north-1'") as caught:
            SHOP.role("north-1")
        assert "east-1" in caught.value.hint

    @given(topologies())
    def test_exactly_one_node_leads(self, topology: Topology) -> None:
        leading = [n for n in topology.regions if isinstance(assignment(topology, n), Lead)]
        assert leading == [topology.head]


class TestNeighbours:
    @given(topologies())
    def test_upstream_and_downstream_are_inverse(self, topology: Topology) -> None:
        for node in topology.regions:
            for other in topology.regions:
                assert (topology.upstream(node) == other) == (node in topology.downstream(other))

    @given(topologies())
    def test_nobody_follows_a_node_outside_and_it_follows_nobody(self, topology: Topology) -> None:
        for node in topology.detached:
            assert topology.upstream(node) is None
            assert topology.downstream(node) == ()

    def test_the_head_follows_nobody(self) -> None:
        assert SHOP.upstream("east-1") is None

    def test_all_that_join_follow_the_tail(self) -> None:
        crowded = replace(SHOP, joining=("west-2", "east-3"))
        assert crowded.downstream("east-2") == ("west-2", "east-3")
