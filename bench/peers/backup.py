"""`pg_basebackup`, and the start of a server on what it copied."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Final

from bench.programs import program, run
from failover.local import processes
from failover.local.postgres import LocalPostgres

NAME: Final = "pg_basebackup"


async def copy(folder: Path, source: str, password_file: Path) -> float:
    """Copies the server of `source`; gives the seconds until the copy takes connections, and removes it."""
    server = LocalPostgres(folder / "backup", password_file=password_file)
    server.folder.mkdir(mode=0o755)
    try:
        start = time.perf_counter()
        await run(
            folder,
            program("pg_basebackup"),
            f"--dbname={source}",
            f"--pgdata={server.data}",
            "--checkpoint=fast",
            "--wal-method=stream",
        )
        await server.start(processes.free_port())
        return time.perf_counter() - start
    finally:
        await server.kill()
        await asyncio.to_thread(shutil.rmtree, server.folder)
