"""What `chain.yaml` may say, and what geochain says when it can't be used."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

import chain
from chain.config import Address, Config, Dsn, LinksConfig, config_schema, load_config, show
from chain.config.document import MAX_DEPTH
from chain.config.load import OVERRIDES
from chain.config.values import format_duration, format_size, parse_duration, parse_size
from chain.errors import BadConfig, BadInput

SAMPLE = Path(__file__).parent / "data" / "chain.yaml"
SCHEMA = Path(chain.__file__).parent / "chain.schema.json"

GOOD = """\
chain: shop
registry:
  dsn: postgresql://geochain@127.0.0.1:6000/registry
nodes:
  - name: east-1
    region: east
    dsn: postgresql://geochain@127.0.0.1:6001/east
    http: 127.0.0.1:8001
  - name: west-1
    region: west
    dsn: postgresql://geochain@127.0.0.1:6002/west
    http: 127.0.0.1:8002
links:
  idle: 2s
"""

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str | bytes = GOOD, env: Mapping[str, str] | None = None) -> Config:
        path = tmp_path / "chain.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_config(path, env or {})

    return load


@pytest.fixture
def fault(load: Load, tmp_path: Path) -> Callable[..., str]:
    """The message for a file that can't be used, its folder left out."""

    def fault(text: str | bytes, env: Mapping[str, str] | None = None) -> str:
        with pytest.raises(BadConfig) as caught:
            load(text, env)
        assert caught.value.hint
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        return caught.value.message.replace(f"{tmp_path}/", "")

    return fault


Fault = Callable[..., str]


def good(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def secret(tmp_path: Path, content: bytes, mode: int = 0o600) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    path.chmod(mode)


WITH_FILE = good("    region: west\n", "    region: west\n    password_file: password\n")


def _password(dsn: Dsn) -> str:
    """The password that a driver finds in the revealed URL."""
    return unquote(urlsplit(dsn.reveal()).password or "")


class TestAGoodFile:
    def test_the_annotated_sample_loads(self, tmp_path: Path) -> None:
        path = tmp_path / "chain.yaml"
        path.write_bytes(SAMPLE.read_bytes())
        (tmp_path / "secrets").mkdir()
        for name in ("registry", "east-1"):
            (tmp_path / "secrets" / name).write_text("s3cret\n")
            (tmp_path / "secrets" / name).chmod(0o600)
        config = load_config(path, {})
        assert [node.name for node in config.nodes] == ["east-1", "west-1", "east-2"]
        assert config.registry.dsn.reveal() == ("postgresql://geochain:s3cret@127.0.0.1:6000/registry")
        assert ":west@" in config.node("west-1").dsn.reveal()
        assert config.drills == "allowed"

    def test_what_is_left_out_takes_its_default(self, load: Load) -> None:
        config = load(good("links:\n  idle: 2s\n", ""))
        assert config.links.batch_bytes == 2 * 1024**2
        assert config.links.batch_events == 50_000
        assert (config.links.idle, config.links.timeout) == (1.0, 10.0)
        assert (config.client.deadline, config.client.group_events) == (30.0, 4096)
        assert config.drills == "forbidden"

    def test_a_section_with_every_line_commented_out_is_its_defaults(self, load: Load) -> None:
        config = load(good("  idle: 2s", "  # idle: 2s") + "client: ~\n")
        assert config.links.idle == 1.0
        assert config.origins["links.idle"] == "default"

    def test_an_address_knows_its_host_and_port(self, load: Load) -> None:
        config = load(good("127.0.0.1:8001", '"[::1]:8001"'))
        assert config.nodes[0].http == "[::1]:8001"
        assert (config.nodes[0].http.host, config.nodes[0].http.port) == ("::1", 8001)
        assert isinstance(config.nodes[0].http, Address)

    def test_words_that_yaml_takes_for_something_else_stay_words(self, load: Load) -> None:
        config = load(good("region: east", "region: no").replace("chain: shop", "chain: on"))
        assert (config.chain, config.nodes[0].region) == ("on", "no")

    def test_nothing_in_it_can_be_changed(self, load: Load) -> None:
        with pytest.raises(ValidationError):
            load().chain = "other"

    def test_a_node_is_found_by_its_name_and_an_unknown_one_lists_the_known(self, load: Load) -> None:
        assert load().node("west-1").region == "west"
        with pytest.raises(BadInput) as caught:
            load().node("north-1")
        assert "north-1" in caught.value.message
        assert "east-1, west-1" in caught.value.hint

    def test_a_byte_order_mark_does_no_harm(self, load: Load) -> None:
        assert load(b"\xef\xbb\xbf" + GOOD.encode()).chain == "shop"


class TestDurationsAndSizes:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("250ms", 0.25), ("30s", 30.0), ("1.5s", 1.5), ("5m", 300.0), ("2h", 7200.0)],
    )
    def test_durations_are_seconds(self, load: Load, text: str, seconds: float) -> None:
        assert load(good("idle: 2s", f"idle: {text}")).links.idle == seconds

    @pytest.mark.parametrize("number", ["30", "0.5"])
    def test_a_duration_without_a_unit_says_which_unit_to_write(self, fault: Fault, number: str) -> None:
        said = f"chain.yaml:14: links.idle: '{number}' has no unit; write {number}s, "
        assert fault(good("2s", number)).startswith(said)

    def test_a_number_in_python_has_no_unit_either(self) -> None:
        with pytest.raises(ValidationError, match="has no unit; write 30s"):
            LinksConfig.model_validate({"idle": 30})

    @pytest.mark.parametrize("text", ["0s", "-1s", "25h", "1d", "1 s", "s", "1S", "[1s]", "'1s\n'"])
    def test_durations_out_of_reason_are_refused(self, fault: Fault, text: str) -> None:
        assert fault(good("2s", text)).startswith("chain.yaml:14: links.idle: ")

    @pytest.mark.parametrize(("text", "size"), [("2048B", 2048), ("64kB", 65536), ("64MB", 64 * 1024**2)])
    def test_sizes_are_bytes_in_powers_of_1024(self, load: Load, text: str, size: int) -> None:
        assert load(good("idle: 2s", f"batch_bytes: {text}")).links.batch_bytes == size

    @pytest.mark.parametrize("text", ["65MB", "1GB", "100B", "8", "8mb", "8 MB", "-1MB", "{}"])
    def test_sizes_out_of_reason_are_refused(self, fault: Fault, text: str) -> None:
        said = fault(good("idle: 2s", f"batch_bytes: {text}"))
        assert said.startswith("chain.yaml:14: links.batch_bytes: ")

    @given(st.integers(1, 86_400_000))
    def test_a_duration_shown_reads_back_as_itself(self, ms: int) -> None:
        assert parse_duration(format_duration(ms / 1000)) == pytest.approx(ms / 1000)

    @given(st.integers(0, 2**40))
    def test_a_size_shown_reads_back_as_itself(self, size: int) -> None:
        assert parse_size(format_size(size)) == size


class TestFaultsHaveALineAndAKey:
    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("chain: shop", "chain: Shop", "1: chain: 'Shop' is not a name"),
            ("chain: shop", "chain:", "1: chain: has no value"),
            ("chain: shop\n", "", "1: chain: is missing"),
            ("region: west", "region: [west]", "10: nodes[1].region: should be a name"),
            ("    region: west\n", "", "9: nodes[1].region: is missing"),
            ("http: 127.0.0.1:8002", "http: 8002", "12: nodes[1].http: '8002' is not host:port"),
            ("127.0.0.1:8002", "127.0.0.1:99999", "12: nodes[1].http: '127.0.0.1:99999' has a port"),
            ("  idle: 2s", "  batch_events: 0", "14: links.batch_events: should be greater than"),
            ("  idle: 2s", "  batch_events: x", "14: links.batch_events: should be a valid integer"),
            ("  idle: 2s", "  - 2s", "13: links: should be a section"),
            ("links:\n  idle: 2s\n", "drills: y\n", "13: drills: should be 'forbidden' or"),
            ("links:\n  idle: 2s\n", "drills: [y]\n", "13: drills: should be"),
        ],
    )
    def test_each_names_them(self, fault: Fault, old: str, new: str, said: str) -> None:
        assert fault(good(old, new)).startswith(f"chain.yaml:{said}")

    @pytest.mark.parametrize("nodes", ["nodes: []", "nodes: {}", "nodes: x", "nodes: ~"])
    def test_a_chain_has_at_least_one_node(self, fault: Fault, nodes: str) -> None:
        registry = "registry:\n  dsn: postgresql://h/registry\n"
        assert fault(f"chain: shop\n{registry}{nodes}\n").startswith("chain.yaml:4: nodes: ")

    def test_an_empty_item_of_the_nodes_is_named(self, fault: Fault) -> None:
        assert fault(good("links:", "  -\nlinks:")).startswith("chain.yaml:13: nodes[2]: should be")

    def test_an_unknown_key_suggests_the_one_that_was_meant(self, fault: Fault) -> None:
        assert fault(good("region: west", "regoin: west")) == (
            "chain.yaml:10: nodes[1].regoin: is not a key here; did you mean 'region'?"
        )

    @pytest.mark.parametrize("value", ["1", "~"])
    def test_an_unknown_key_like_no_other_lists_the_keys(self, fault: Fault, value: str) -> None:
        assert fault(GOOD + f"  zzz: {value}\n") == (
            "chain.yaml:15: links.zzz: is not a key here; "
            "the keys are batch_bytes, batch_events, idle, timeout"
        )

    def test_everything_that_is_wrong_is_said_at_once_in_the_order_of_the_file(self, fault: Fault) -> None:
        text = (
            good("shop", "Shop")
            .replace("region: east", "region: ${NOWHERE}")
            .replace("west-1", "east-1")
            .replace("region: west", "password_file: nofile\n    regoin: west")
            .replace("idle: 2s", "idle: 2s\n  idle: 3s\n  timeout: 30")
        )
        lines = fault(text, {"CHAIN_CLIENT_DEADLINE": "soon"}).splitlines()
        assert [line.split(": ")[:2] for line in lines] == [
            ["chain.yaml:1", "chain"],
            ["chain.yaml:6", "nodes[0].region"],
            ["chain.yaml:9", "nodes[1].name"],
            ["chain.yaml:10", "nodes[1].password_file"],
            ["chain.yaml:11", "nodes[1].regoin"],
            ["chain.yaml:16", "links.idle"],
            ["chain.yaml:17", "links.timeout"],
            ["env CHAIN_CLIENT_DEADLINE", "client.deadline"],
        ]

    def test_a_file_of_nothing_but_faults_is_not_recited_to_its_end(self, fault: Fault) -> None:
        said = fault("".join(f"zzz{i}: 1\n" for i in range(1000))).splitlines()
        assert len(said) == 51
        assert said[-1].endswith("more")

    def test_a_key_with_line_breaks_stays_on_one_line(self, fault: Fault) -> None:
        assert len(fault(GOOD + '"a\\nb": 1\n').splitlines()) == 1


class TestTheFileItself:
    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(BadConfig, match=r"no\.yaml: can't be read: No such file"):
            load_config(tmp_path / "no.yaml", {})

    @pytest.mark.parametrize("name", ["", "a\0b"])
    def test_a_path_that_is_no_file_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(BadConfig):
            load_config(tmp_path / name, {})

    def test_a_file_over_one_mebibyte_is_refused(self, fault: Fault) -> None:
        assert fault(GOOD + "#" * 1024**2) == "chain.yaml: is larger than 1,048,576 bytes"

    def test_a_file_that_is_not_utf8_is_refused(self, fault: Fault) -> None:
        assert fault(b"chain: shop\n# caf\xe9\n") == "chain.yaml:2: is not UTF-8"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "chain.yaml:1: is empty"),
            ("# nothing\n", "is empty"),
            ("chain: shop\n\tregistry: x\n", "chain.yaml:2: found character '\\t'"),
            ("chain: [\n", "chain.yaml:2: "),
            ("chain: shop\n\x00\n", "chain.yaml:2: has a character"),
            ("a: &a 1\nb: *a\n", "chain.yaml:1: has an anchor or alias"),
            ("a: *a\n", "chain.yaml:1: has an anchor or alias"),
            ("a: !!python/name:os.system x\n", "chain.yaml:1: has a tag"),
            ("a: !!map {}\n", "chain.yaml:1: has a tag"),
            ("? [a]\n: 1\n", "chain.yaml:1: has a key that is not text"),
            ("a: 1\n---\nb: 1\n", "chain.yaml:2: has a second document"),
            ('a: "\\UFFFFFFFF"\n', "chain.yaml:1: "),
            ('a: "\\uD800"\n', "chain.yaml:1: has an escape that is no character"),
            ("just words\n", "chain.yaml:1: should be a section"),
            ("- a\n", "chain.yaml:1: should be a section"),
        ],
    )
    def test_what_yaml_can_do_beyond_a_configuration_is_refused(
        self, fault: Fault, text: str, said: str
    ) -> None:
        assert said in fault(text)

    @pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
    def test_deep_nesting_is_refused(self, fault: Fault, opening: str) -> None:
        assert f"nested more than {MAX_DEPTH} deep" in fault("a:\n  " + opening * 500)

    def test_a_key_written_twice_names_both_lines(self, fault: Fault) -> None:
        assert fault(good("region: west", "region: west\n    region: north")) == (
            "chain.yaml:11: nodes[1].region: is written twice; the first is on line 10"
        )

    def test_a_section_written_twice_leaves_the_lines_of_the_first_alone(self, fault: Fault) -> None:
        said = fault(good("idle: 2s", "idle: x") + "links:\n  idle: 1s\n").splitlines()
        assert said[0].startswith("chain.yaml:14: links.idle: 'x' is not a duration")
        assert said[1].startswith("chain.yaml:15: links: is written twice")


class TestVariables:
    def test_they_are_expanded_in_values(self, load: Load) -> None:
        env = {"REGION": "north", "PORT": "9001", "EMPTY": ""}
        text = good("region: east", "region: ${REGION}").replace(
            "http: 127.0.0.1:8001", 'http: "${HOST:-localhost}:${PORT}"'
        )
        config = load(text.replace("idle: 2s", "idle: ${EMPTY:-3s}"), env)
        assert config.nodes[0].region == "north"
        assert config.nodes[0].http == "localhost:9001"
        assert config.links.idle == 3.0

    def test_what_they_hold_goes_through_the_validators(self, load: Load, fault: Fault) -> None:
        text = good("idle: 2s", 'batch_events: "${COUNT}"')
        assert load(text, {"COUNT": "7"}).links.batch_events == 7
        assert "links.batch_events" in fault(text, {"COUNT": "many"})

    def test_what_they_hold_is_never_parsed_as_yaml(self, fault: Fault) -> None:
        env = {"X": "east\n    http: evil:1", "Y": "{name: a}"}
        assert "nodes[0].region: 'east\\n" in fault(good("region: east", "region: ${X}"), env)
        assert "nodes[0].region: '{name" in fault(good("region: east", "region: ${Y}"), env)

    def test_what_they_hold_is_not_expanded_again(self, load: Load) -> None:
        text = good("geochain@127.0.0.1:6000", "u:${A}@127.0.0.1")
        assert _password(load(text, {"A": "${B}", "B": "x"}).registry.dsn) == "${B}"

    def test_keys_are_never_expanded(self, fault: Fault) -> None:
        said = fault(good("chain: shop", "${K}: shop"), {"K": "chain"})
        assert "'${K}': is not a key here" in said

    def test_a_doubled_dollar_is_the_text_itself(self, load: Load) -> None:
        text = good("geochain@127.0.0.1:6000", "u:$${A}$x@127.0.0.1")
        assert _password(load(text, {"A": "no"}).registry.dsn) == "${A}$x"

    def test_an_unset_variable_names_file_line_key_and_variable(self, fault: Fault) -> None:
        assert fault(good("region: west", "region: ${WHERE}")).startswith(
            "chain.yaml:10: nodes[1].region: the variable WHERE is not set"
        )

    @pytest.mark.parametrize("text", ["${", "${}", "${1}", "${A-b}", "${A:-${B}}", "${A B}"])
    def test_what_only_looks_like_a_variable_is_refused(self, fault: Fault, text: str) -> None:
        said = fault(good("region: west", f"region: '{text}'"), {"A": "a", "B": "b"})
        assert said.startswith("chain.yaml:10: nodes[1].region: has a '${' that is not")

    def test_a_file_that_expands_without_bound_is_refused(self, fault: Fault) -> None:
        text = "".join(f"k{i}: '{'${A}' * 100}'\n" for i in range(20))
        assert "variables expand to more than" in fault(text, {"A": "x" * 1000})

    def test_a_variable_that_is_not_utf8_is_refused(self, fault: Fault) -> None:
        env = {"A": os.fsdecode(b"\xff"), "CHAIN_DRILLS": os.fsdecode(b"\xff")}
        said = fault(good("region: west", "region: ${A}"), env).splitlines()
        assert "the variable A is not UTF-8" in said[0]
        assert said[1] == "env CHAIN_DRILLS: drills: is not UTF-8"


class TestPrecedence:
    def test_the_environment_wins_over_the_file_and_the_file_over_the_default(self, load: Load) -> None:
        config = load(env={"CHAIN_LINKS_IDLE": "250ms", "CHAIN_CLIENT_DEADLINE": "5s"})
        assert config.links.idle == 0.25
        assert config.client.deadline == 5.0
        assert config.origins["links.idle"] == "env CHAIN_LINKS_IDLE"
        assert config.origins["client.deadline"] == "env CHAIN_CLIENT_DEADLINE"

    def test_every_value_says_where_it_came_from(self, load: Load) -> None:
        origins = load().origins
        assert origins["chain"] == "chain.yaml:1"
        assert origins["nodes[1].region"] == "chain.yaml:10"
        assert origins["links.idle"] == "chain.yaml:14"
        assert origins["links.timeout"] == "default"
        assert origins["drills"] == "default"

    def test_the_registry_and_the_drills_can_come_from_the_environment(self, load: Load) -> None:
        text = GOOD[: GOOD.index("registry:")] + GOOD[GOOD.index("nodes:") :]
        config = load(text, {"CHAIN_REGISTRY_DSN": "postgres://h/r", "CHAIN_DRILLS": "allowed"})
        assert config.registry.dsn.reveal() == "postgresql://h:5432/r"
        assert config.drills == "allowed"

    def test_a_fault_in_the_environment_names_the_variable(self, fault: Fault) -> None:
        said = fault(GOOD, {"CHAIN_LINKS_IDLE": "30"})
        assert said.startswith("env CHAIN_LINKS_IDLE: links.idle: '30' has no unit")

    def test_other_variables_and_empty_ones_change_nothing(self, load: Load) -> None:
        env = {"CHAIN_CONFIG": "x", "CHAIN_LINKS_NOPE": "x", "CHAIN_CHAIN": "x"}
        assert load(env={**env, "CHAIN_LINKS_IDLE": ""}).links.idle == 2.0

    def test_a_variable_wins_over_the_lease_and_the_automation_of_the_file(self, load: Load) -> None:
        config = load(env={"CHAIN_LEASE_DURATION": "5s", "CHAIN_AUTOMATION_POLICY": "automatic"})
        assert (config.lease.duration, config.automation.policy) == (5.0, "automatic")
        for name, value in (("CHAIN_LEASE_DURATION", "5"), ("CHAIN_AUTOMATION_POLICY", "bogus")):
            with pytest.raises(BadConfig, match=name):
                load(env={name: value})

    @pytest.mark.parametrize(
        ("section", "said"),
        [
            ("{every: 800ms}", "automation.every must be at most a quarter of lease.duration"),
            ("{lost_after: 300ms}", "automation.lost_after must be at least twice automation.every"),
            ("{never: [west-1, nosuch]}", "automation.never names no node of this chain: nosuch"),
        ],
    )
    def test_an_automation_that_would_not_work_is_refused(self, load: Load, section: str, said: str) -> None:
        with pytest.raises(BadConfig, match=said):
            load(f"{GOOD}\nautomation: {section}\n")
        assert load(f"{GOOD}\nautomation: {{never: [west-1], every: 750ms}}\n").automation.every == 0.75

    def test_every_scalar_outside_the_nodes_has_a_variable_except_the_name(self) -> None:
        expected = {
            f"{section}.{key}"
            for section, fields in (
                ("registry", ("dsn", "password_file")),
                ("links", ("batch_bytes", "batch_events", "idle", "timeout")),
                ("client", ("deadline", "group_events")),
                ("lease", ("enabled", "duration", "margin", "failsafe")),
                (
                    "automation",
                    (
                        "policy",
                        "loss_events",
                        "loss_seconds",
                        "cool_down",
                        "rejoin",
                        "lost_after",
                        "come_home",
                        "every",
                    ),
                ),
                ("verify", ("http", "user", "password_file", "every", "again", "share", "stale")),
                ("verify", ("latency_objective", "window", "canary")),
            )
            for key in fields
        } | {"drills"}
        assert {".".join(loc) for loc in OVERRIDES.values()} == expected


class TestVerifiersOwnUser:
    def test_a_verifier_has_the_user_and_password_that_are_its_own(self, load: Load, tmp_path: Path) -> None:
        (tmp_path / "verifier").write_text("secret\n")
        config = load(f"{GOOD}\nverify: {{user: reader, password_file: verifier}}\n")
        for dsn in (config.registry.dsn, config.nodes[0].dsn):
            assert "//reader:secret@" in config.verify.login(dsn).reveal()
        assert "secret" not in repr(config) + str(show(config))

    def test_without_one_it_is_who_everyone_is(self, load: Load) -> None:
        dsn = load(GOOD).nodes[0].dsn
        assert load(GOOD).verify.login(dsn) == dsn

    def test_a_password_without_a_user_is_refused(self, load: Load, tmp_path: Path) -> None:
        (tmp_path / "verifier").write_text("secret\n")
        with pytest.raises(BadConfig, match="password_file needs a user"):
            load(f"{GOOD}\nverify: {{password_file: verifier}}\n")


class TestNodesAreDistinct:
    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("west-1", "east-1", "9: nodes[1].name: is the name of nodes[0] already (line 5)"),
            ("8002", "8001", "12: nodes[1].http: is the address of nodes[0] already (line 8)"),
            (
                "geochain@127.0.0.1:6002/west",
                "other@127.0.0.1:6001/east?sslmode=require",
                "11: nodes[1].dsn: is the database of nodes[0] already (line 7)",
            ),
            (
                "127.0.0.1:6002/west",
                "127.0.0.1:6000/registry",
                "11: nodes[1].dsn: is the database of registry already (line 3)",
            ),
        ],
    )
    def test_two_of_the_same_name_both_lines(self, fault: Fault, old: str, new: str, said: str) -> None:
        assert fault(good(old, new)) == f"chain.yaml:{said}"

    def test_a_registry_from_the_environment_is_compared_too(self, fault: Fault) -> None:
        env = {"CHAIN_REGISTRY_DSN": "postgresql://127.0.0.1:6001/east"}
        assert "is the database of registry already (env CHAIN_REGISTRY_DSN)" in fault(GOOD, env)

    def test_a_registry_may_have_the_name_of_no_node(self, fault: Fault) -> None:
        said = fault(good("registry:\n", "registry:\n  name: east-1\n  http: 127.0.0.1:8001\n"))
        assert "already" not in said


class TestPasswords:
    def test_the_file_is_read_less_one_newline_and_encoded(self, load: Load, tmp_path: Path) -> None:
        secret(tmp_path, "p@ss/wörd#? %\n\n".encode())
        dsn = load(WITH_FILE).nodes[1].dsn
        assert _password(dsn) == "p@ss/wörd#? %\n"
        assert urlsplit(dsn.reveal()).hostname == "127.0.0.1"

    @pytest.mark.parametrize(
        ("content", "mode", "said"),
        [
            (None, 0, "No such file"),
            (b"", 0o600, "is empty"),
            (b"\n", 0o600, "is empty"),
            (b"x", 0o620, "others may write"),
            (b"x", 0o602, "others may write"),
            (b"x\0", 0o600, "zero byte"),
            (b"\xff", 0o600, "is not UTF-8"),
            (b"x" * 5000, 0o600, "is larger than"),
        ],
    )
    def test_a_file_that_can_not_be_trusted_or_read_is_refused(
        self, fault: Fault, tmp_path: Path, content: bytes | None, mode: int, said: str
    ) -> None:
        if content is not None:
            secret(tmp_path, content, mode)
        message = fault(WITH_FILE)
        assert message.startswith("chain.yaml:11: nodes[1].password_file: ")
        assert said in message

    @pytest.mark.parametrize("name", [".", "pipe", '"a\\0b"', '""'])
    def test_what_is_no_file_is_refused_without_waiting_for_it(
        self, fault: Fault, tmp_path: Path, name: str
    ) -> None:
        os.mkfifo(tmp_path / "pipe")
        said = fault(WITH_FILE.replace("password_file: password", f"password_file: {name}"))
        assert said.startswith("chain.yaml:11: nodes[1].password_file: ")

    def test_two_passwords_for_one_database_are_refused(self, fault: Fault, tmp_path: Path) -> None:
        secret(tmp_path, b"x")
        said = fault(WITH_FILE.replace("geochain@127.0.0.1:6002", "geochain:y@127.0.0.1:6002"))
        assert said.endswith("nodes[1].password_file: the dsn has a password too; keep one of them")

    def test_of_two_passwords_the_environment_has_the_last_word(self, load: Load, tmp_path: Path) -> None:
        secret(tmp_path, b"file")
        text = good("6000/registry\n", "6000/registry\n  password_file: nofile\n")
        config = load(text, {"CHAIN_REGISTRY_DSN": "postgresql://u:env@h/r"})
        assert _password(config.registry.dsn) == "env"
        text = good("geochain@127.0.0.1:6000", "geochain:dsn@127.0.0.1:6000")
        config = load(text, {"CHAIN_REGISTRY_PASSWORD_FILE": "password"})
        assert _password(config.registry.dsn) == "file"

    def test_no_text_of_a_config_shows_one(self, load: Load, tmp_path: Path) -> None:
        secret(tmp_path, b"hunter2")
        config = load(WITH_FILE.replace("geochain@127.0.0.1:6000", "geochain:hunter2@127.0.0.1"))
        texts = [
            *(repr(config), str(config), f"{config.registry.dsn}", repr(config.nodes[1].dsn)),
            *(
                config.model_dump_json(),
                json.dumps(show(config)),
                repr(config.model_dump()),
                repr(dataclasses.asdict(config.registry.dsn)),
            ),
        ]
        assert [text for text in texts if "hunter2" in text] == []
        assert show(config)["nodes"][1]["dsn"] == "postgresql://geochain:***@127.0.0.1:6002/west"
        assert "hunter2" in config.nodes[1].dsn.reveal()

    @pytest.mark.parametrize(
        "dsn",
        [
            "mysql://u:hunter2@h/d",
            "postgresql://u:hunter2/x@h/d",
            "postgresql://u:1/hunter2@h/d",
            "postgresql://u:1?hunter2@h/d",
            "postgresql://u:hunter2@h@h/d",
            "postgresql://u:hunter2@h:99999/d",
            "postgresql://u:hunter2@h",
            "postgresql://u:hunter2%00@h/d",
            "postgresql://u:1/x?Hunter2=hunter2",
            "u:hunter2@h/d",
        ],
    )
    def test_no_message_shows_one(self, fault: Fault, dsn: str) -> None:
        text = good("postgresql://geochain@127.0.0.1:6002/west", f"'{dsn}'")
        said = fault(text)
        assert said.startswith("chain.yaml:11: nodes[1].dsn: ")
        assert "hunter2" not in said.lower()


class TestDsn:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("http://h/d", "should begin with postgresql://"),
            ("host=h dbname=d", "should begin with postgresql://"),
            ("postgresql:///d", "has no host"),
            ("postgresql://h", "has no database"),
            ("postgresql://h/", "has no database"),
            ("postgresql://h/a/b", "should be postgresql://"),
            ("postgresql://h1,h2/d", "should be postgresql://"),
            ("postgresql://h/d#x", "should be postgresql://"),
            ("postgresql://h\t/d", "should be postgresql://"),
            ("postgresql://h/d\n", "should be postgresql://"),
            ("postgresql://h:0/d", "has a port outside"),
            ("postgresql://[::zz]/d", "should be postgresql://"),
            ("postgresql://[1::2::3]/d", "no IPv6 address"),
            ("postgresql://a%20b/d", "has a host that is neither"),
            ("postgresql://%ff/d", "not UTF-8"),
            ("postgresql://h/d?sslmode=maybe", "has an sslmode other than"),
            ("postgresql://h/d?sslmode=require&sslmode=disable", "'sslmode' twice"),
            ("postgresql://h/d?sslmode", "has parameters that can't be read"),
            ("postgresql://h/d?application_name=x", "'application_name' other than"),
            ("postgresql://h/d?host=evil", "'host' other than"),
            ("postgresql://h/d?options=-c%20x", "'options' other than"),
            ("postgresql://h/d?passfile=/etc/x", "'passfile' other than"),
        ],
    )
    def test_what_is_not_on_the_list_is_refused(self, text: str, said: str) -> None:
        with pytest.raises(ValueError, match=re.escape(said)):
            Dsn.parse(text)

    @pytest.mark.parametrize(
        "text",
        [
            "postgresql://h:5432/d",
            "postgresql://u@h:5432/d",
            "postgresql://u:p%40@h:1/d%2Fe?sslmode=verify-full&sslrootcert=%2Fetc%2Fca%20x.pem",
            "postgresql://u@[::1]:5432/d",
            "postgresql://u@%2Frun%2FPostgres:5432/d",
        ],
    )
    def test_what_is_revealed_is_what_was_written(self, text: str) -> None:
        assert Dsn.parse(text).reveal() == text

    @given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
    def test_any_password_survives_the_way_to_the_driver(self, password: str) -> None:
        dsn = Dsn.parse("postgresql://u@h/d").with_password(password)
        assert Dsn.parse(dsn.reveal()) == dsn
        assert str(dsn) == "postgresql://u:***@h:5432/d"

    @given(st.text())
    def test_any_text_is_a_dsn_or_a_value_error(self, text: str) -> None:
        for candidate in (text, f"postgresql://{text}", f"postgresql://u:{text}@h/d?{text}"):
            try:
                dsn = Dsn.parse(candidate)
            except ValueError:
                continue
            assert Dsn.parse(dsn.reveal()) == dsn


class TestSchema:
    def test_the_committed_schema_is_the_one_the_models_generate(self) -> None:
        assert SCHEMA.read_text() == json.dumps(config_schema(), indent=2) + "\n", (
            "regenerate it: chainctl config schema > chain/chain.schema.json"
        )

    def test_every_section_is_closed_and_every_key_described(self) -> None:
        schema = config_schema()
        for section in (schema, *schema["$defs"].values()):
            assert section["additionalProperties"] is False
            assert [
                k for k, v in section["properties"].items() if not {"description", "$ref"} & v.keys()
            ] == []

    def test_its_defaults_are_written_as_the_file_writes_them(self, load: Load) -> None:
        links = config_schema()["$defs"]["LinksConfig"]["properties"]
        shown = show(load(good("  idle: 2s\n", "")))["links"]
        assert {key: value["default"] for key, value in links.items()} == shown


PIECES = st.sampled_from(
    [
        *GOOD.splitlines(keepends=True),
        *("\n", " ", "  ", "\t", "- ", ": ", "? ", "# ", "[", "]", "{", "}", ",", "|\n", ">-\n"),
        *("'", '"', "&a ", "*a", "!", "!!int ", "---\n", "...\n", "%YAML 1.1\n", "%TAG ! x\n"),
        *("${A}", "${", "$${", "${A:-b}", "~", "\\", "\\x", "<<", "@", "`", "\x85", "\u2028"),
    ]
)
EDITS = st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 5), PIECES), max_size=4)


def edited(edits: list[tuple[int, int, str]]) -> str:
    text = GOOD
    for at, removed, piece in edits:
        text = text[:at] + piece + text[at + removed :]
    return text


@given(
    st.text().map(str.encode)
    | st.binary()
    | st.lists(PIECES).map(lambda pieces: "".join(pieces).encode())
    | EDITS.map(lambda edits: edited(edits).encode())
)
@example(b"%YAML " + b"1" * 5000 + b".1\n--- a")
@example(b'a: "\\UFFFFFFFF"')
@example(b"? ")
@example(b"[" * 5000)
def test_any_file_loads_or_is_refused_as_a_bad_config(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chain.yaml"
        path.write_bytes(content)
        try:
            config = load_config(path, {"A": "a"})
        except BadConfig as error:
            for line in error.message.splitlines():
                assert line.startswith(str(path))
        else:
            assert show(config)["chain"] == config.chain
