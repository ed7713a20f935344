"""`pg_dump | pg_restore` of the log's table: in the custom format, and by a folder with two jobs.

Uncompressed. Both load the rows first and make the indexes after that. Neither verifies anything; `compare`
is how its user might: a digest of each row and one over these, in both databases at once.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Final

from bench.programs import pipe, program, run
from bench.servers import connected

PIPE: Final = "pg_dump | pg_restore"
COMPARED: Final = "pg_dump | pg_restore, then compared by MD5"
TWO_JOBS: Final = "pg_dump -j 2, pg_restore -j 2"
_DUMP: Final = ("--table=chain.event", "--compress=none", "--no-owner")

_COMPARED_WITHIN_S: Final = 600.0
_DIGEST: Final = "select md5(string_agg(md5(e::text), '' order by e.position)) from chain.event e"


async def copy(folder: Path, source: str, target: str, *, jobs: int) -> None:
    """Into an empty database."""
    async with connected(target) as connection:
        await connection.execute("create schema chain")
    dump = [program("pg_dump"), *_DUMP, f"--dbname={source}"]
    restore = [program("pg_restore"), "--no-owner", "--exit-on-error", f"--dbname={target}"]
    if jobs == 1:
        await pipe(folder, [*dump, "--format=custom"], restore)
        return
    place = folder / "dumped"
    try:
        await run(folder, *dump, "--format=directory", f"--jobs={jobs}", f"--file={place}")
        await run(folder, *restore, f"--jobs={jobs}", str(place))
    finally:
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)


async def compare(source: str, target: str) -> None:
    """Raises RuntimeError if the two tables differ."""

    async def digest(dsn: str) -> str:
        async with connected(dsn) as connection:
            return str(await connection.fetchval(_DIGEST, timeout=_COMPARED_WITHIN_S))

    ours, theirs = await asyncio.gather(digest(source), digest(target))
    if ours != theirs:
        raise RuntimeError("what was restored is not what was dumped")
