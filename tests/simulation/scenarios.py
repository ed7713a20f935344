"""The scenarios. Of the faults that a scenario has, each seed draws those of its life."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.simulation.faults import (
    crash_controller,
    crash_daemon,
    crash_head,
    crash_in_append,
    crash_in_apply,
    crash_node,
    crash_operator,
    crash_server,
    cut_controller,
    cut_head_from_registry,
    cut_pair,
    cut_region,
    cut_registry,
    exile_head,
    flap,
    forget_promotion,
    freeze,
    freeze_head,
    freeze_in_renewal,
    isolate,
    lonely_head,
    lose_flush,
    lose_flush_of_head,
    lose_locks,
    refill,
    registry_outage,
    restore_backup,
    step_clock,
    still_clock,
    storm,
)
from tests.simulation.life import Life, Operation, Scenario


def _follower(life: Life) -> Mapping[str, Any]:
    topology = life.world.decided.topology
    followers = topology.order[1:] if topology is not None else ()
    return {"node": life.rng.choice(followers)} if followers else {}


def _outsider(life: Life) -> Mapping[str, Any]:
    topology = life.world.decided.topology
    members = topology.order if topology is not None else ()
    outside = sorted(n for n in life.world.machines if n not in members)
    return {"node": life.rng.choice(outside or sorted(life.world.machines))}


def _nothing(life: Life) -> Mapping[str, Any]:
    return {}


MOVE: Final[Operation] = ("switchover", _follower)
HOME: Final[Operation] = ("rotate", _nothing)
FAIL: Final[Operation] = ("failover", _nothing)
LEAVE: Final[Operation] = ("detach", _follower)
JOIN: Final[Operation] = ("bootstrap-tail", _outsider)
REJOIN: Final[Operation] = ("rejoin", _outsider)

SCENARIOS: Final[Mapping[str, Scenario]] = {
    s.name: s
    for s in (
        Scenario(
            "steady",
            "nothing fails but single messages",
            (),
            ("acknowledged by chain", "repeated message", "late message", "a batch behind another"),
        ),
        Scenario(
            "failover-storm",
            "heads die, one after the other, sooner than the chain is whole again",
            (
                crash_head,
                crash_in_append,
                lonely_head,
                crash_node,
                crash_server,
                crash_daemon,
                crash_controller,
            ),
            (
                "a crash before the flush",
                "failover done",
                "a dead branch",
                "a dead branch of more than one epoch",
                "rejoin done",
                "an epoch for a restarted head",
            ),
            nodes=(3, 3),
        ),
        Scenario(
            "moves",
            "planned moves of the head, with faults at every step",
            (crash_daemon, crash_server, crash_operator, isolate, cut_pair, storm, crash_controller),
            ("switchover done", "switchover failed", "a resumed run", "a fenced append"),
            operators=1,
            operations=(MOVE, MOVE, HOME),
        ),
        Scenario(
            "rotations",
            "the head goes round, again and again, in a chain that is well",
            (crash_daemon, crash_operator),
            ("switchover done", "rotate done"),
            nodes=(3, 3),
            operators=1,
            operations=(MOVE, HOME),
            rough=False,
            share=0.5,
        ),
        Scenario(
            "registry-outage",
            "the registry is away, or cannot be reached from some nodes",
            (registry_outage, cut_registry, cut_head_from_registry, exile_head, crash_daemon),
            ("a registry outage", "a promise", "an append after the lease"),
        ),
        Scenario(
            "flapping",
            "connections go and come, faster than anything can settle",
            (flap, flap, isolate, cut_pair, storm),
            ("flapping", "a cut one way", "failover done"),
        ),
        Scenario(
            "two-of-each",
            "two controllers and two operators, none of whom knows of the others",
            (crash_controller, crash_operator, crash_head, lose_locks, cut_controller, isolate, storm),
            ("a resumed run", "a lost lock", "an operator died", "a controller died", "failover done"),
            nodes=(3, 3),
            controllers=2,
            operators=2,
            operations=(MOVE, MOVE, HOME, FAIL, FAIL),
        ),
        Scenario(
            "freeze",
            "processes stand still and wake, and do not know it",
            (freeze, freeze, freeze_head, crash_daemon, isolate),
            (
                "a freeze",
                "an append after the lease",
                "late message",
                "failover done",
            ),
        ),
        Scenario(
            "frozen-renewals",
            "daemons freeze in the middle of a renewal, and wake when another head was promoted",
            (freeze_in_renewal,),
            ("a freeze in a renewal", "failover done"),
            failsafe=0.0,
            pause_s=(3.0, 4.0),
            life_s=(3.0, 6.0),
            share=0.25,
        ),
        Scenario(
            "clocks",
            "clocks drift and are set, while heads are cut off",
            (step_clock, cut_head_from_registry, isolate, freeze_head, crash_daemon),
            (
                "a clock was set",
                "an append after the lease",
                "failover done",
                "an epoch for a restarted head",
            ),
            drift=0.14,
        ),
        Scenario(
            "slow-clocks",
            "clocks are much too slow or too fast, and no promises help: the margin alone must do",
            (exile_head,),
            ("an append after the lease", "failover done"),
            drift=0.3,
            failsafe=0.0,
            leases_s=(14.0,),
            life_s=(2.0, 4.0),
            pause_s=(4.0, 5.0),
            share=0.25,
        ),
        Scenario(
            "still-clocks",
            "clocks stand still on heads that are cut off: only their daemons know that time goes on",
            (still_clock, exile_head),
            ("a clock stood still", "an append after the lease", "failover done"),
            share=0.5,
        ),
        Scenario(
            "lost-flush",
            "machines crash, and lose what they had said was durable",
            (
                lose_flush,
                lose_flush_of_head,
                lose_flush_of_head,
                crash_in_append,
                crash_daemon,
                crash_head,
                isolate,
            ),
            ("a disk that lost events", "an epoch for a restarted head", "a dead branch"),
        ),
        Scenario(
            "old-backup",
            "stores are replaced by old copies of themselves",
            (restore_backup, restore_backup, forget_promotion, crash_head, crash_daemon, isolate),
            ("a disk that lost events", "an epoch for a restarted head", "a dead branch"),
        ),
        Scenario(
            "refills",
            "followers are filled again from nothing, and heads are lost in the middle of that",
            (refill, refill, crash_daemon, crash_in_apply, crash_in_apply),
            (
                "a load",
                "a fence in a load",
                "a follower's crash before the flush",
                "an epoch for a restarted head",
                "failover done",
            ),
            nodes=(3, 4),
            pause_s=(4.0, 9.0),
            life_s=(9.0, 16.0),
            share=0.5,
        ),
        Scenario(
            "lonely-heads",
            "heads write on alone, restart, write on, and are lost: long dead branches",
            (lonely_head, lonely_head, crash_daemon),
            ("a dead branch", "a dead branch of more than one epoch", "a dead branch let go of"),
            pause_s=(2.0, 5.0),
        ),
        Scenario(
            "regions",
            "whole regions are cut off, with and without the registry",
            (cut_region, cut_region, lonely_head, cut_pair, crash_node),
            (
                "failover done",
                "a dead branch",
                "rejoin done",
                "acknowledged by region",
            ),
            nodes=(3, 4),
        ),
        Scenario(
            "growing",
            "nodes join and leave a chain of two to five",
            (crash_daemon, crash_server, isolate, crash_operator, crash_controller),
            ("bootstrap-tail done", "detach done", "rejoin done"),
            nodes=(2, 3),
            spares=(1, 2),
            operators=1,
            operations=(JOIN, JOIN, REJOIN, LEAVE, MOVE),
        ),
        Scenario(
            "everything",
            "all of it at once",
            (
                crash_head,
                crash_in_append,
                crash_in_apply,
                crash_node,
                crash_server,
                crash_daemon,
                crash_controller,
                crash_operator,
                cut_controller,
                cut_head_from_registry,
                cut_pair,
                cut_region,
                cut_registry,
                exile_head,
                flap,
                freeze,
                freeze_head,
                isolate,
                lose_flush,
                lose_flush_of_head,
                lose_locks,
                lonely_head,
                registry_outage,
                restore_backup,
                step_clock,
                storm,
            ),
            ("failover done", "a dead branch", "a resumed run", "a disk that lost events", "a promise"),
            nodes=(2, 4),
            spares=(0, 1),
            controllers=2,
            operators=2,
            operations=(MOVE, HOME, FAIL, LEAVE, JOIN, REJOIN),
        ),
    )
}
