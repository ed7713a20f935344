"""`chainctl`: what it offers, what it refuses, and where it says so; no servers but for the last test."""

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
from uuid import UUID

import pytest

import chain
from chain.commands import start_run, start_step
from failover.local.chain import LocalChain
from failover.playbook import load_playbook, playbook_names
from failover.rules import table
from failover.steps import STEPS
from tests.support import Ran, fleet_of
from tests.support import chainctl as run_chainctl

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

BAD = """\
name: bad
title: Does nothing good.
steps:
  - step: explode
  - {step: leave, point_of_no_return: true}
"""

CHANGING = {
    "switchover": ["switchover"],
    "failover": ["failover"],
    "bootstrap": ["bootstrap", "east-1"],
    "rejoin": ["rejoin", "east-1"],
    "rotate": ["rotate"],
    "failback": ["failback"],
    "detach": ["detach", "east-1"],
    "playbook run": ["playbook", "run", "switchover"],
    "pause": ["pause"],
    "resume": ["resume"],
    "ack": ["ack"],
}
DECIDING = {
    "playbook approve": ["playbook", "approve", "region-evacuation", "0" * 64, "region=east"],
    "playbook resume": ["playbook", "resume"],
    "playbook abort": ["playbook", "abort"],
}
LOOKING = {
    "status": ["status"],
    "watch": ["watch", "--count", "1"],
    "history": ["history"],
    "verify": ["verify"],
    "events read": ["events", "read"],
    "events follow": ["events", "follow"],
    "ledger list": ["ledger", "list"],
    "explain": ["explain"],
    "playbook plan": ["playbook", "plan", "switchover"],
}
DATA = (
    *("demo", "status", "history", "verify", "events read", "ledger list"),
    *("explain", "playbook list", "playbook steps", "playbook plan"),
)

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
        changing = {verb for verb in CHANGING if " " not in verb}
        assert {*changing, "demo", "up", "down", "status", "watch", "history", "events"} <= {*listed}
        assert {"verify", "config", "serve", "ledger", "explain", "playbook"} <= {*listed}

    @pytest.mark.parametrize(
        ("group", "verbs"),
        [
            ("events", {"import", "append", "read", "follow"}),
            ("ledger", {"list", "show", "requeue", "discard"}),
            ("config", {"show", "lint", "schema"}),
            ("serve", {"node", "controller"}),
            ("playbook", {"list", "steps", "schema", "lint", "plan", "approve", "run", "resume", "abort"}),
        ],
    )
    def test_so_are_those_of_each_group(self, chainctl: Chainctl, group: str, verbs: set[str]) -> None:
        listed = chainctl(group, "--help").stdout.split("Commands:")[1]
        assert verbs <= {*re.findall(r"^  ([a-z]+)  +\S", listed, re.MULTILINE)}

    @pytest.mark.parametrize("verb", CHANGING)
    def test_what_changes_the_chain_can_be_planned_explained_and_confirmed(
        self, chainctl: Chainctl, verb: str
    ) -> None:
        text = chainctl(*verb.split(), "--help").stdout
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
            ["abort"],
            ["explain", "--last", "0"],
            ["playbook", "splice"],
            ["playbook", "run"],
            ["playbook", "approve", "region-evacuation"],
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
            *DECIDING.values(),
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


class TestPlaybooks:
    def test_there_are_those_that_are_shipped(self, chainctl: Chainctl) -> None:
        done = chainctl("playbook", "list", "-o", "json")
        assert done.returncode == 0
        listed = {row["playbook"]: row for row in json.loads(done.stdout)}
        assert {*listed} == {*playbook_names()}
        assert listed["failover"]["parameters"] == "node? never? head_is_dead?"

    def test_the_steps_that_there_are_say_what_they_do(self, chainctl: Chainctl) -> None:
        rows = [json.loads(line) for line in chainctl("playbook", "steps", "-o", "jsonl").stdout.splitlines()]
        assert [row["step"] for row in rows] == list(STEPS)
        kinds = {row["step"]: row["kind"] for row in rows}
        assert (kinds["check-candidate"], kinds["drain"], kinds["fence-head"]) == (
            "looks",
            "waits",
            "changes",
        )

    def test_the_schema_is_the_committed_one_byte_for_byte(self, chainctl: Chainctl) -> None:
        done = chainctl("playbook", "schema")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (SCHEMA.parent.parent / "playbooks" / "playbook.schema.json").read_text()

    def test_nothing_is_wrong_with_what_is_shipped(self, chainctl: Chainctl) -> None:
        for arguments in ([], ["switchover", "rotate"]):
            done = chainctl("playbook", "lint", *arguments)
            assert (done.returncode, said(done)) == (0, "nothing is wrong\n")

    def test_all_that_is_wrong_is_said_with_file_and_line(self, chainctl: Chainctl, tmp_path: Path) -> None:
        (tmp_path / "bad.yaml").write_text(BAD)
        done = chainctl("playbook", "lint", "bad.yaml", "switchover")
        assert (done.returncode, done.stderr) == (1, "")
        assert [line.split(": ", 1)[0] for line in done.stdout.splitlines()] == ["bad.yaml:4", "bad.yaml:5"]

    @pytest.mark.parametrize("verb", ["plan", "run", "lint"])
    @pytest.mark.parametrize("name", ["teleport", "missing.yaml", "../switchover"])
    def test_a_playbook_that_there_is_not_is_named(
        self, chainctl: Chainctl, written: Path, verb: str, name: str
    ) -> None:
        done = chainctl("playbook", verb, name)
        assert done.returncode == (1 if name.endswith(".yaml") else 2)
        assert name in said(done)

    def test_a_file_that_breaks_a_rule_is_not_run(
        self, chainctl: Chainctl, written: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "bad.yaml").write_text(BAD)
        for verb in ("plan", "run"):
            done = chainctl("playbook", verb, "bad.yaml")
            assert done.returncode == 1
            assert "bad.yaml:4: there is no step 'explode'" in said(done)
            assert "chainctl playbook lint" in done.stderr

    @pytest.mark.parametrize("given", [["node"], ["=x"], ["node=a", "node=b"], ["nodes=a"], ["home=perhaps"]])
    def test_parameters_are_name_and_value_and_those_that_it_takes(
        self, chainctl: Chainctl, written: Path, given: list[str]
    ) -> None:
        done = chainctl("playbook", "plan", "switchover", *given)
        assert done.returncode == 2
        assert said(done)

    def test_a_run_is_named_as_runs_are(self, chainctl: Chainctl, written: Path) -> None:
        done = chainctl("playbook", "abort", "--run", "the last", "--yes")
        assert done.returncode == 2
        assert "'the last' is no run" in said(done)

    def test_the_rules_are_explained_without_any_chain(self, chainctl: Chainctl) -> None:
        done = chainctl("explain", "--rules")
        assert (done.returncode, done.stderr, done.stdout) == (0, "", table())


class TestUnreachable:
    @pytest.mark.parametrize(
        "arguments",
        [*LOOKING.values(), *CHANGING.values(), *DECIDING.values()],
        ids=lambda a: " ".join(a)[:60],
    )
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


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_an_operator_pauses_plans_approves_and_runs(chain: LocalChain) -> None:
    """One chain for all of it, since each costs seconds to start."""
    config = ("-c", str(chain.config_path))

    async def ask(*arguments: str, code: int = 0) -> Ran:
        ran = await run_chainctl(*arguments, *config)
        assert ran.code == code, (arguments, ran.err)
        assert "Traceback" not in ran.err
        return ran

    async with fleet_of(chain) as fleet:
        registry = fleet.registry
        fresh = await registry.topology()

        # Without a terminal nobody can say yes, and nothing is changed.
        for command in (["pause"], ["resume"], ["ack"], ["playbook", "run", "switchover"]):
            refused = await ask(*command, code=3)
            assert "nobody here to ask" in refused.err
        await ask("pause", "--dry-run")
        for command in (["resume"], ["abort"]):
            assert "no run is unfinished" in (await ask("playbook", *command, "--yes", code=3)).err
        assert (await registry.topology()).version == fresh.version

        # Pausing, once.
        assert "automation is paused\n" in (await ask("pause", "--yes", "--reason", "a drill")).err
        assert ((await registry.topology()).paused or "").endswith(": a drill")
        assert "already; nothing was changed" in (await ask("pause", "--yes")).err
        await ask("resume", "--yes")
        assert (await registry.topology()).paused is None
        assert "already; nothing was changed" in (await ask("ack", "--yes")).err

        # What controllers thought.
        assert json.loads((await ask("explain", "-o", "json")).out) == []
        seen = {"head": "lost", "lease_left_s": 0.0, "paused": False, "why": "", "lost": None}
        thought = {"by": "c-1", "number": 9, "rule": "head-lost", "action": "run", "sentence": "It is lost."}
        await registry.note({**thought, "seen": seen})
        (row,) = json.loads((await ask("explain", "-o", "json")).out)
        assert {**thought, "seen": seen, "at": row["at"]} == row
        told = await ask("explain")
        assert "head=lost lease_left_s=0.0" in " ".join(told.out.split())
        assert "paused=" not in told.out

        # A run that somebody left behind is shown before anything is asked.
        run, text = UUID(int=7), load_playbook("switchover").model_dump_json()
        await registry.decide(start_run(run, "switchover", {}, "ada", text=text), by="ada")
        await registry.decide(start_step(run, "choose-candidate"), by="ada")
        refused = await ask("playbook", "resume", code=3)
        assert f"run {run}: switchover, begun by ada\n  · choose-candidate …" in refused.err
        assert (
            "is not unfinished"
            in (await ask("playbook", "abort", "--run", str(UUID(int=8)), "--yes", code=3)).err
        )
        await ask("playbook", "abort", "--run", str(run), "--yes")
        assert (await registry.topology()).run is None

        # A plan is approved of as it is, by a named person, for a while and for one run.
        evacuation = ("region-evacuation", "region=east")
        planned = json.loads((await ask("playbook", "plan", *evacuation, "-o", "json")).out)
        assert (planned["node"], planned["needs_approval"], planned["epoch"]) == ("west-1", True, 1)
        assert planned["order"] == ["east-1", "west-1", "east-2"]
        assert "needs an approval" in (await ask("playbook", "run", *evacuation, "--yes", code=4)).err
        approve = ("playbook", "approve", evacuation[0])
        assert "nobody here to ask" in (await ask(*approve, planned["plan"], evacuation[1], code=3)).err
        assert "have changed" in (await ask(*approve, "0" * 64, evacuation[1], "--yes", code=3)).err
        assert (
            "--for"
            in (await ask(*approve, planned["plan"], evacuation[1], "--for", "ever", "--yes", code=2)).err
        )
        await ask(*approve, planned["plan"][:12], evacuation[1], "--by", "bob", "--for", "10m", "--yes")
        assert [(a.plan, a.by) for a in (await registry.topology()).approvals] == [(planned["plan"], "bob")]
        await ask("playbook", "run", *evacuation, "--yes")
        empty = await registry.topology()
        assert (empty.order, empty.approvals, empty.run) == (("west-1",), (), None)
        assert empty.failed_over_at is None
