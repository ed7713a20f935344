"""`chainctl` without any servers: what it offers, what it refuses, and where it says so."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import chain

CHAINCTL = Path(sys.executable).with_name("chainctl")
SCHEMA = Path(chain.__file__).parent / "chain.schema.json"

CHAIN = """\
chain: shop
registry:
  dsn: postgresql://geochain:hunter2@127.0.0.1:{registry}/registry
nodes:
  - name: east-1
    region: east
    dsn: postgresql://geochain:hunter2@127.0.0.1:{registry}/east
    http: 127.0.0.1:8001
"""

CHANGING = {
    "switchover": ["switchover"],
    "failover": ["failover"],
    "bootstrap": ["bootstrap", "east-1"],
    "rejoin": ["rejoin", "east-1"],
    "rotate": ["rotate"],
    "failback": ["failback"],
}
LOOKING = {
    "status": ["status"],
    "watch": ["watch", "--count", "1"],
    "history": ["history"],
    "verify": ["verify"],
    "events read": ["events", "read"],
    "events follow": ["events", "follow"],
    "ledger list": ["ledger", "list"],
}
DATA = ("demo", "status", "history", "verify", "events read", "ledger list")

Done = subprocess.CompletedProcess[str]
Chainctl = Callable[..., Done]


def clean_environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CHAIN_")}
    return {**kept, "COLUMNS": "140", "NO_COLOR": "1"}


@pytest.fixture
def chainctl(tmp_path: Path) -> Chainctl:
    """Runs chainctl in an empty folder, with nobody to ask."""

    def chainctl(
        *arguments: str | bytes, env: Mapping[str, str] | None = None, timeout_s: float = 30
    ) -> Done:
        return subprocess.run(
            [CHAINCTL, *arguments],
            cwd=tmp_path,
            env={**clean_environment(), **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    return chainctl


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, and where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def written(tmp_path: Path, closed_port: int) -> Path:
    path = tmp_path / "chain.yaml"
    path.write_text(CHAIN.format(registry=closed_port))
    return path


def said(done: Done) -> str:
    """What was said of a failure: a sentence on stderr, nothing on stdout, no traceback."""
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr
    return done.stderr


class TestHelp:
    def test_the_verbs_are_the_documented_ones(self, chainctl: Chainctl) -> None:
        done = chainctl("--help")
        listed = re.findall(r"^  ([a-z]+)  +\S", done.stdout.split("Commands:")[1], re.MULTILINE)
        assert done.returncode == 0
        assert {*CHANGING, "demo", "up", "down", "status", "watch", "history", "events", "ledger"} <= {
            *listed
        }
        assert {"verify", "config", "serve"} <= {*listed}

    @pytest.mark.parametrize(
        ("group", "verbs"),
        [
            ("events", {"import", "append", "read", "follow"}),
            ("ledger", {"list", "show", "requeue", "discard"}),
            ("config", {"show", "lint", "schema"}),
            ("serve", {"node"}),
        ],
    )
    def test_so_are_those_of_each_group(self, chainctl: Chainctl, group: str, verbs: set[str]) -> None:
        listed = chainctl(group, "--help").stdout.split("Commands:")[1]
        assert verbs <= {*re.findall(r"^  ([a-z]+)  +\S", listed, re.MULTILINE)}

    @pytest.mark.parametrize("verb", CHANGING)
    def test_what_changes_the_chain_can_be_planned_explained_and_confirmed(
        self, chainctl: Chainctl, verb: str
    ) -> None:
        text = chainctl(verb, "--help").stdout
        assert [o for o in ("--dry-run", "--yes", "--reason", "--config") if o not in text] == []

    @pytest.mark.parametrize("verb", DATA)
    def test_what_shows_data_shows_it_for_programs_too(self, chainctl: Chainctl, verb: str) -> None:
        assert "table|json|jsonl" in chainctl(*verb.split(), "--help").stdout

    def test_help_loads_nothing_that_it_does_not_need(self) -> None:
        code = (
            "import sys, failover.cli\nsys.argv = ['chainctl', '--help']\n"
            "try:\n    failover.cli.main()\nexcept SystemExit:\n    pass\n"
            "print(sorted({'asyncpg', 'aiohttp', 'pydantic', 'yaml', 'rich', 'psutil'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, timeout=30
        )
        assert done.stdout.splitlines()[-1] == "[]"


class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["splice"],
            ["--splice"],
            ["status", "--splice"],
            ["status", "-o", "xml"],
            ["status", "surplus"],
            ["bootstrap"],
            ["switchover", "--max-lag", "-1"],
            ["switchover", "--max-lag", "few"],
            ["events", "splice"],
            ["events", "read", "--limit", "0"],
            ["events", "append", "s"],
            ["events", "append", "s", "T", "d", "--expected", "²"],
            ["events", "append", "s", "T", "d", "--expected", "9" * 5000],
            ["events", "append", "s", "T", "d", "--id", "no id"],
            ["ledger", "discard", "an-entry"],
            ["verify", "--from", "0"],
            ["history", "--last", "0"],
            ["serve", "node"],
        ],
        ids=lambda arguments: " ".join(arguments)[:60],
    )
    def test_what_can_not_be_understood_ends_with_2(self, chainctl: Chainctl, arguments: list[str]) -> None:
        done = chainctl(*arguments)
        assert done.returncode == 2
        assert said(done)


class TestNoChain:
    @pytest.mark.parametrize(
        "arguments",
        [
            *CHANGING.values(),
            *LOOKING.values(),
            ["config", "show"],
            ["config", "lint"],
            ["serve", "node", "east-1"],
            ["events", "append", "s", "T", b"\xff"],
            ["events", "import", "a.jsonl"],
            ["ledger", "show", "an-entry"],
            ["ledger", "requeue", "all"],
            ["ledger", "discard", "an-entry", "--reason", "why"],
        ],
        ids=lambda arguments: " ".join(map(str, arguments)),
    )
    def test_where_there_is_no_chain_a_hint_says_how_to_get_one(
        self, chainctl: Chainctl, arguments: list[str | bytes]
    ) -> None:
        done = chainctl(*arguments)
        assert done.returncode == 2
        assert "there is no chain.yaml here" in said(done)
        assert "→ start one: chainctl up" in done.stderr

    def test_a_chain_yaml_that_is_not_there_is_named(self, chainctl: Chainctl) -> None:
        done = chainctl("status", "-c", "missing.yaml")
        assert done.returncode == 2
        assert "missing.yaml" in said(done)

    def test_down_has_nothing_to_end(self, chainctl: Chainctl) -> None:
        done = chainctl("down")
        assert done.returncode == 0
        assert "0 processes" in said(done)


class TestConfig:
    @pytest.mark.parametrize("arguments", [["status"], ["config", "lint"], ["config", "show"], ["rotate"]])
    def test_a_broken_file_is_named_with_line_and_key(
        self, chainctl: Chainctl, written: Path, arguments: list[str]
    ) -> None:
        written.write_text(written.read_text().replace("region:", "regoin:"))
        done = chainctl(*arguments)
        assert done.returncode == 2
        assert "chain.yaml:6: nodes[0].regoin" in said(done)
        assert "→" in done.stderr

    def test_a_good_file_is_praised_where_no_program_reads(self, chainctl: Chainctl, written: Path) -> None:
        done = chainctl("config", "lint")
        assert done.returncode == 0
        assert "nothing is wrong" in said(done)

    def test_show_masks_passwords(self, chainctl: Chainctl, written: Path) -> None:
        done = chainctl("config", "show")
        assert done.returncode == 0
        assert "hunter2" not in done.stdout + done.stderr
        assert "geochain:***@" in json.loads(done.stdout)["config"]["registry"]["dsn"]

    def test_show_says_where_each_value_is_from(self, chainctl: Chainctl, written: Path) -> None:
        done = chainctl("config", "show", env={"CHAIN_LINKS_IDLE": "250ms"})
        origins = json.loads(done.stdout)["origins"]
        assert origins["links.idle"] == "env CHAIN_LINKS_IDLE"
        assert origins["chain"] == "chain.yaml:1"
        assert origins["links.timeout"] == "default"

    def test_the_option_wins_over_the_environment_and_that_over_the_folder(
        self, chainctl: Chainctl, written: Path
    ) -> None:
        for name in ("harbour", "station"):
            other = written.with_name(f"{name}.yaml")
            other.write_text(written.read_text().replace("chain: shop", f"chain: {name}"))
        env = {"CHAIN_CONFIG": "harbour.yaml"}
        assert "chain shop " in chainctl("config", "lint").stderr
        assert "chain harbour " in chainctl("config", "lint", env=env).stderr
        assert "chain station " in chainctl("config", "lint", "-c", "station.yaml", env=env).stderr

    def test_the_schema_is_the_committed_one_byte_for_byte(self, chainctl: Chainctl) -> None:
        done = chainctl("config", "schema")
        assert done.returncode == 0
        assert done.stdout == SCHEMA.read_text() == json.dumps(json.loads(done.stdout), indent=2) + "\n"
        assert done.stderr == ""


class TestUnreachable:
    @pytest.mark.parametrize("arguments", [*LOOKING.values(), *CHANGING.values()], ids=" ".join)
    def test_a_registry_that_is_down_is_said_at_once(
        self, chainctl: Chainctl, written: Path, arguments: list[str]
    ) -> None:
        done = chainctl(*arguments, timeout_s=15)
        assert done.returncode == 1
        assert "→" in said(done)
        assert "hunter2" not in done.stderr

    @pytest.mark.parametrize("arguments", [["status"], ["history"], ["failover", "--yes"]], ids=" ".join)
    def test_a_registry_that_never_answers_is_not_waited_for_long(
        self, chainctl: Chainctl, tmp_path: Path, silent_port: int, arguments: list[str]
    ) -> None:
        (tmp_path / "chain.yaml").write_text(CHAIN.format(registry=silent_port))
        began = time.monotonic()
        done = chainctl(*arguments, timeout_s=60)
        assert done.returncode == 1
        assert "→" in said(done)
        assert time.monotonic() - began < 15
