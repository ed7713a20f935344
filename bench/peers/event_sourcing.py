"""`eventsourcing` (PyPI), by its Postgres recorder with its own settings; its callers are threads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid5

from bench.data import payloads
from bench.measure import NotMeasured
from bench.peers.geochain import wants_conflict
from bench.workload import Tally, Workload, drive_threads

NAME: Final = "eventsourcing"
_STREAMS: Final = UUID(int=7)


def recorder(dsn: str, *, prepared: bool = True) -> Any:
    """Its application recorder: what an application of its saves and reads events by. Raises NotMeasured.

    Its tables are made by one process, with `prepared` false: several at a time are in each other's way.
    """
    try:
        from eventsourcing.persistence import InfrastructureFactory
        from eventsourcing.utils import Environment
    except ImportError as error:
        raise NotMeasured(f"install geochain[bench]: {error}") from error
    create = {"CREATE_TABLE": "no" if prepared else "yes"}
    environment = Environment(name="bench", env={**_settings(dsn), **create})
    return InfrastructureFactory.construct(environment).application_recorder()


def _settings(dsn: str) -> Mapping[str, str]:
    parts = urlsplit(dsn)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": parts.path.lstrip("/"),
        "POSTGRES_HOST": parts.hostname or "",
        "POSTGRES_PORT": str(parts.port),
        "POSTGRES_USER": parts.username or "",
        "POSTGRES_PASSWORD": unquote(parts.password or ""),
    }


async def prepare(dsn: str) -> None:
    recorder(dsn, prepared=False).datastore.close()


async def append(
    dsn: str, workload: Workload, process: int, wait_told: Callable[[], Awaitable[None]]
) -> Tally:
    """An append is one call of `insert_events`. It has no metadata: that goes into the state."""
    ours = recorder(dsn)
    from eventsourcing.persistence import IntegrityError, StoredEvent

    data = payloads(256, workload.data_bytes + 73)
    versions: dict[int, int] = {}

    def one(caller: int, number: int) -> bool:
        version = versions.get(caller, 0)
        if wants_conflict(number, workload.conflicts):
            version -= workload.batch
        stream = uuid5(_STREAMS, f"{process}/{caller}")
        events = [
            StoredEvent(stream, version + n, "shop.domain:OrderPlaced", data[(version + n) % len(data)])
            for n in range(workload.batch)
        ]
        try:
            ours.insert_events(events)
        except IntegrityError:
            return False
        versions[caller] = version + workload.batch
        return True

    try:
        return await drive_threads(one, workload, wait_told)
    finally:
        ours.datastore.close()
