"""Every party reaches every other through a proxy of its own, and can be cut off alone, one way or both."""

from __future__ import annotations

from pathlib import Path

import yaml

from failover.drills.network import CLIENT, OPERATOR, REGISTRY, Network, apply, lift
from failover.drills.toxics import Flow, Hold
from failover.local.chain import LocalChain


def written(folder: Path) -> LocalChain:
    nodes = [
        {
            "name": name,
            "region": region,
            "dsn": f"postgresql://geochain@127.0.0.1:{5000 + n}/chain",
            "password_file": "secrets/password",
            "http": f"127.0.0.1:{6000 + n}",
        }
        for n, (name, region) in enumerate({"a": "east", "b": "west", "c": "east"}.items())
    ]
    registry = {"dsn": "postgresql://geochain@127.0.0.1:4000/registry", "password_file": "secrets/password"}
    (folder / "secrets").mkdir()
    (folder / "secrets" / "password").write_text("secret\n")
    (folder / "chain.yaml").write_text(yaml.safe_dump({"chain": "t", "registry": registry, "nodes": nodes}))
    return LocalChain(folder)


async def test_each_party_is_told_addresses_of_its_own_but_for_itself(tmp_path: Path) -> None:
    chain = written(tmp_path)
    network = Network(chain, ["one"])
    await network.start()
    try:
        true = chain.config()
        seen = {party: network.config(party) for party in ("a", "b", "c", "one", CLIENT, OPERATOR)}
        for party, config in seen.items():
            assert config.registry.dsn.port != true.registry.dsn.port
            assert config.registry.dsn.reveal().count("secret") == 1
            for node in true.nodes:
                own = node.name == party
                assert (config.node(node.name).dsn.port == node.dsn.port) == own
        ports = [c.node(n.name).dsn.port for c in seen.values() for n in true.nodes]
        assert len(set(ports)) == len(ports), "a wire is shared"
    finally:
        await network.stop()


def test_a_direction_holds_requests_of_one_side_and_answers_of_the_other(tmp_path: Path) -> None:
    network = Network(written(tmp_path), ["one"])
    lanes = network.lanes({"a"}, {"b"})
    wires = {id(w.proxy): (w.source, w.target) for w in network.wires}
    assert {(wires[id(proxy)], flow) for proxy, flow in lanes} == {
        (("a", "b"), Flow.REQUESTS),
        (("b", "a"), Flow.ANSWERS),
    }


async def test_what_was_applied_twice_is_lifted_and_healing_leaves_nothing(tmp_path: Path) -> None:
    network = Network(written(tmp_path), ["one"])
    lanes = network.lanes({"a"}, {REGISTRY})
    apply(lanes, Hold())
    lift(lanes, Hold())
    lift(lanes, Hold())
    assert all(proxy.toxics(flow) == () for proxy, flow in lanes)
    apply(lanes, Hold())
    await network.heal()
    assert all(w.proxy.toxics(flow) == () for w in network.wires for flow in Flow)
