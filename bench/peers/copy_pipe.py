"""`psql COPY | psql COPY`, binary: the shortest way from one table to another that Postgres itself has."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bench.programs import pipe, program

NAME: Final = "psql COPY | psql COPY"


async def copy(folder: Path, source: str, target: str) -> None:
    """Copies the log into an empty one with the same indexes, in one transaction."""
    psql = (program("psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1")
    await pipe(
        folder,
        [*psql, source, "--command=copy chain.event to stdout (format binary)"],
        [*psql, target, "--command=copy chain.event from stdin (format binary)"],
    )
