"""The faults. Each comes, lasts for a while, and is mended, unless something else has mended it before."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from chain.event import EMPTY
from tests.simulation.life import Life
from tests.simulation.network import Process
from tests.simulation.stores import Snapshot


async def crash_node(life: Life) -> None:
    """A machine: the server and the daemon."""
    name = _node(life)
    life.world.crash(name)
    await _lasts(life, 0.3, 6.0)
    life.world.revive(name)


async def crash_server(life: Life) -> None:
    name = _node(life)
    life.world.machines[name].server.kill()
    await _lasts(life, 0.01, 3.0)
    life.world.start_server(name)


async def crash_daemon(life: Life) -> None:
    name = _node(life)
    life.world.crash_daemon(name)
    await _lasts(life, 0.01, 5.0)
    life.world.start_daemon(name)


async def crash_head(life: Life) -> None:
    topology = life.world.decided.topology
    if topology is not None:
        life.world.crash(topology.head)
        await _lasts(life, 1.0, 7.0)
        life.world.revive(topology.head)


async def crash_in_append(life: Life) -> None:
    """The head's server crashes with an append, before or after that is flushed, read or answered."""
    topology = life.world.decided.topology
    if topology is not None:
        life.world.doomed.add(topology.head)
        await _lasts(life, 0.5, 3.0)
        life.world.doomed.discard(topology.head)
        life.world.start_server(topology.head)


async def crash_in_apply(life: Life) -> None:
    """A follower's server crashes with a batch, before or after that is flushed or read."""
    topology = life.world.decided.topology
    if topology is not None and topology.order[1:]:
        name = life.rng.choice(topology.order[1:])
        life.world.doomed.add(name)
        await _lasts(life, 0.5, 3.0)
        life.world.doomed.discard(name)
        life.world.start_server(name)


async def lonely_head(life: Life) -> None:
    """Nobody follows the head any more; it writes on, perhaps restarts and writes on, and then it is lost."""
    world, rng = life.world, life.rng
    topology = world.decided.topology
    if topology is None or len(topology.order) < 2:
        return
    head = topology.head
    cuts = {(m.process.name, head) for m in world.machines.values() if m.name != head}
    world.say("nobody follows", head)
    world.network.cuts |= cuts
    for _ in range(rng.choice((0, 1, 1, 2))):
        await _lasts(life, 0.3, 1.0)
        world.machines[head].server.kill()
        await _lasts(life, 0.01, 0.1)
        world.start_server(head)
    await _lasts(life, 0.5, 1.5)
    world.crash(head)
    await _lasts(life, 6.0, 9.0)  # long enough for a failover
    world.network.cuts -= cuts
    world.revive(head)


async def freeze(life: Life) -> None:
    """A server, a daemon, a machine, a controller or an operator stands still, and wakes."""
    world, rng = life.world, life.rng
    machine = world.machines[_node(life)]
    others = [*world.controllers.values(), *(process for process, _ in life.operators.values())]
    choices: list[list[Process]] = [
        [machine.server],
        [machine.process],
        [machine.server, machine.process],
        *([each] for each in others),
    ]
    processes = rng.choice(choices)
    for process in processes:
        if process.up:
            process.freeze()
    world.say("frozen", *(p.name for p in processes))
    world.invariants.met["a freeze"] += 1
    await _lasts(life, 0.2, 6.0)
    for process in processes:
        process.wake()
    world.say("awake", *(p.name for p in processes))


async def freeze_head(life: Life) -> None:
    topology = life.world.decided.topology
    if topology is not None:
        machine = life.world.machines[topology.head]
        machine.server.freeze()
        if life.rng.random() < 0.7:
            machine.process.freeze()
        life.world.invariants.met["a freeze"] += 1
        await _lasts(life, 2.0, 7.0)
        machine.server.wake()
        machine.process.wake()


async def freeze_in_renewal(life: Life) -> None:
    """The head's daemon freezes, its lease renewed and its store not told, and wakes after the failover."""
    world, topology = life.world, life.world.decided.topology
    if topology is None:
        return
    machine = world.machines[topology.head]
    machine.store.stuns = True
    await asyncio.sleep(world.config.lease.duration)
    machine.store.stuns = False
    if not machine.process.frozen:
        return
    world.invariants.met["a freeze in a renewal"] += 1
    own = {machine.server.name, machine.process.name}
    cut = asyncio.create_task(_cut(life, own, _everybody(life) - own, "both", 7.0, 9.0))
    await _lasts(life, 4.0, 7.0)
    machine.process.wake()
    await cut


async def isolate(life: Life) -> None:
    """A node is cut off from everybody, both ways or one way."""
    world, rng = life.world, life.rng
    machine = world.machines[_node(life)]
    own = {machine.server.name, machine.process.name}
    others = _everybody(life) - own
    await _cut(life, own, others, rng.choice(("both", "both", "out", "in")), 0.5, 6.0)


async def cut_pair(life: Life) -> None:
    """Two nodes don't hear each other, or only one the other."""
    world, rng = life.world, life.rng
    first, second = rng.sample(sorted(world.machines), 2)
    sides = [{world.machines[n].server.name, world.machines[n].process.name} for n in (first, second)]
    await _cut(life, sides[0], sides[1], rng.choice(("both", "out")), 0.5, 6.0)


async def cut_region(life: Life) -> None:
    world, rng = life.world, life.rng
    region = rng.choice(sorted({m.region for m in world.machines.values()}))
    own = {p.name for m in world.machines.values() if m.region == region for p in (m.server, m.process)}
    others = _everybody(life) - own
    if rng.random() < 0.4:
        others.discard(world.site.name)
    await _cut(life, own, others, "both", 0.5, 6.0)


async def cut_registry(life: Life) -> None:
    """One node, or every node, does not reach the registry."""
    world, rng = life.world, life.rng
    names = [_node(life)] if rng.random() < 0.6 else sorted(world.machines)
    own = {world.machines[n].process.name for n in names}
    await _cut(life, own, {world.site.name}, rng.choice(("both", "both", "out", "in")), 0.5, 8.0)


async def cut_head_from_registry(life: Life) -> None:
    topology = life.world.decided.topology
    if topology is not None:
        own = {life.world.machines[topology.head].process.name}
        await _cut(life, own, {life.world.site.name}, "both", 2.0, 8.0)


async def exile_head(life: Life) -> None:
    """The head reaches its followers and clients, but neither the registry nor those who operate."""
    world, topology = life.world, life.world.decided.topology
    if topology is not None:
        machine = world.machines[topology.head]
        judges = {world.site.name, *(p.name for p in world.controllers.values())}
        judges |= {process.name for process, _ in life.operators.values()}
        lease_s = world.config.lease.duration
        low_s, high_s = (3.0, 7.0) if lease_s < 4.0 else (1.6 * lease_s, 2.0 * lease_s)
        await _cut(life, {machine.server.name, machine.process.name}, judges, "both", low_s, high_s)


async def still_clock(life: Life) -> None:
    """The head is cut off, and its clock is set back again and again, never so far that it would notice."""
    world, topology = life.world, life.world.decided.topology
    if topology is None or world.machines[topology.head].store.seen is None:
        return
    machine = world.machines[topology.head]
    own = {machine.server.name, machine.process.name}
    cut = asyncio.create_task(_cut(life, own, _everybody(life) - own, "both", 3.0, 7.0))
    world.invariants.met["a clock stood still"] += 1
    while not cut.done():
        await asyncio.sleep(0.2)
        if (seen := machine.store.seen) is not None:
            world.set_clock(machine.name, min(0.0, (seen - machine.clock.now()).total_seconds()))


async def cut_controller(life: Life) -> None:
    """A controller does not reach a node, or nothing at all."""
    world, rng = life.world, life.rng
    own = {rng.choice(sorted(p.name for p in world.controllers.values()))}
    machine = world.machines[_node(life)]
    near = {machine.server.name, machine.process.name}
    await _cut(life, own, rng.choice((near, _everybody(life) - own)), rng.choice(("both", "in")), 0.5, 6.0)


async def flap(life: Life) -> None:
    """A link goes and comes, faster than anything can settle."""
    for _ in range(life.rng.randint(3, 8)):
        await isolate_shortly(life)
        await _lasts(life, 0.1, 1.0)
    life.world.invariants.met["flapping"] += 1


async def isolate_shortly(life: Life) -> None:
    world, rng = life.world, life.rng
    topology = world.decided.topology
    name = topology.head if topology is not None and rng.random() < 0.6 else _node(life)
    own = {world.machines[name].server.name, world.machines[name].process.name}
    await _cut(life, own, _everybody(life) - own, rng.choice(("both", "out", "in")), 0.2, 2.0)


async def registry_outage(life: Life) -> None:
    world = life.world
    world.invariants.met["a registry outage"] += 1
    if life.rng.random() < 0.6:
        world.crash_registry()
    else:
        world.site.freeze()
    await _lasts(life, 0.5, 9.0)
    world.revive_registry()


async def lose_locks(life: Life) -> None:
    """The registry's server ends its sessions; who held a lock goes on, and does not know yet."""
    if life.world.sessions.held:
        life.world.invariants.met["a lost lock"] += 1
    life.world.sessions.end_all()


async def lose_flush(life: Life) -> None:
    """A machine crashes, and its disk lacks what was written in the last moments."""
    await _go_back(life, 0.01, 0.8)


async def restore_backup(life: Life) -> None:
    """A node's store is replaced by an old copy of itself."""
    await _go_back(life, 1.0, 5.0)


async def lose_flush_of_head(life: Life) -> None:
    topology = life.world.decided.topology
    if topology is not None:
        await _go_back(life, 0.01, 1.0, topology.head)


async def forget_promotion(life: Life) -> None:
    """The head's disk goes back to what it was when the epoch was granted."""
    world, topology = life.world, life.world.decided.topology
    if topology is None or topology.head not in world.at_grant:
        return
    world.invariants.met["a promotion lost"] += 1
    await _lose(life, topology.head, world.at_grant[topology.head])


async def refill(life: Life) -> None:
    """A follower has a new, empty disk; as it is being filled again, the head and its source are lost."""
    world, topology = life.world, life.world.decided.topology
    if topology is None or len(topology.order) < 2:
        return
    name = life.rng.choice(topology.order[1:])
    lost = {topology.head, topology.upstream(name) or topology.head}
    store = world.machines[name].store
    await _lose(life, name, store.blank())
    store.begun_to_load.clear()
    with suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await store.begun_to_load.wait()
    world.crash(*sorted(lost))
    await _lasts(life, 5.0, 12.0)
    world.revive(*sorted(lost))


async def step_clock(life: Life) -> None:
    world, rng = life.world, life.rng
    name = _node(life)
    step_s = rng.choice((-30.0, -1.0, -0.15, -0.1, 0.1, 1.0, 30.0))
    if step_s > 0 and world.machines[name].store.promised:
        return  # a follower whose clock is set forward breaks its promise: docs/simulation.md
    world.invariants.met["a clock was set"] += 1
    world.say("clock", name, step_s)
    world.set_clock(name, step_s)


async def crash_controller(life: Life) -> None:
    world = life.world
    name = life.rng.choice(sorted(world.controllers))
    if world.controllers[name].up:
        world.crash_controller(name)
        world.invariants.met["a controller died"] += 1
    await _lasts(life, 0.1, 3.0)
    if not world.controllers[name].up:
        world.start_controller(name)


async def crash_operator(life: Life) -> None:
    if life.operators:
        name = life.rng.choice(sorted(life.operators))
        process, task = life.operators[name]
        process.kill()
        task.cancel()
        life.world.invariants.met["an operator died"] += 1
        await _lasts(life, 0.1, 3.0)
        life.start_operator(name)


async def storm(life: Life) -> None:
    """For a while the network loses and delays much more."""
    network = life.world.network
    before = network.loss, network.late
    network.loss, network.late = 0.3, 0.1
    await _lasts(life, 0.3, 3.0)
    network.loss, network.late = before


async def _go_back(life: Life, low_s: float, high_s: float, name: str = "") -> None:
    name = name or _node(life)
    machine = life.world.machines[name]
    snapshot = machine.store.snapshot()
    await _lasts(life, low_s, high_s)
    await _lose(life, name, snapshot)


async def _lose(life: Life, name: str, snapshot: Snapshot) -> None:
    machine = life.world.machines[name]
    others = (m.store.last for m in life.world.machines.values() if m is not machine)
    topology = life.world.decided.topology
    alone = topology is not None and topology.order == (name,)
    if not snapshot.events and (alone or EMPTY in others):
        return  # a whole log lost, and nobody to have it from: docs/simulation.md
    if life.rng.random() < 0.5:
        life.world.crash_daemon(name)
    life.world.lose_disk(name, snapshot)
    await _lasts(life, 0.01, 3.0)
    life.world.revive(name)


async def _cut(life: Life, one: set[str], other: set[str], way: str, low_s: float, high_s: float) -> None:
    out = {(a, b) for a in one for b in other}
    back = {(b, a) for a in one for b in other}
    cuts = {"both": out | back, "out": out, "in": back}[way]
    life.world.say("cut", way, sorted(one), sorted(other))
    life.world.invariants.met["a cut one way" if way != "both" else "a cut"] += 1
    life.world.network.cuts |= cuts
    await _lasts(life, low_s, high_s)
    life.world.network.cuts -= cuts
    life.world.say("healed", sorted(one))


def _node(life: Life) -> str:
    """Any node, the head as often as all others together."""
    topology = life.world.decided.topology
    if topology is not None and life.rng.random() < 0.4:
        return topology.head
    return life.rng.choice(sorted(life.world.machines))


def _everybody(life: Life) -> set[str]:
    world = life.world
    names = {p.name for m in world.machines.values() for p in (m.server, m.process)}
    names |= {world.site.name, *(p.name for p in world.controllers.values())}
    names |= {p.name for p, _ in life.operators.values()}
    return names | {"client w0", "client w1"}


async def _lasts(life: Life, low_s: float, high_s: float) -> None:
    await asyncio.sleep(life.rng.uniform(low_s, high_s))
