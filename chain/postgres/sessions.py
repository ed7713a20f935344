"""Connections to one Postgres, with a bound on every wait and one translation of every error.

A connection on which anything went wrong but an SQL error is cut, never reused: a peer that hangs must cost
its caller the timeout and nothing more.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import asyncpg

from chain.errors import (
    BadConfig,
    BadEvent,
    BadInput,
    ChainError,
    Corrupt,
    Fenced,
    LeaseExpired,
    NotHead,
    NotPrepared,
    OutcomeUnknown,
    Promised,
    Refused,
    Restarted,
    StaleLink,
    Unavailable,
    WrongIdentity,
    WrongRevision,
)

# In quotes: only the stubs make asyncpg's class generic.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_OURS: Final[dict[str, type[ChainError]]] = {
    "GC003": Fenced,
    "GC004": LeaseExpired,
    "GC005": Restarted,
    "GC006": BadEvent,
    "GC007": StaleLink,
    "GC008": Corrupt,
    "GC009": WrongIdentity,
    "GC010": Promised,
}
_UNREACHABLE: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what the driver raises if a socket dies between two of its messages
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.DiskFullError,
    asyncpg.OutOfMemoryError,
    asyncpg.PostgresIOError,
)
_UNPREPARED: Final = (
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedTableError,
)
DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""Everything that the driver raises; TimeoutError is an OSError."""


class Sessions:
    """Connections to the Postgres at `dsn`: at most `size`, made when needed.

    `name` is what errors call the peer. Every use is over after `timeout_s`, connecting included.
    """

    def __init__(self, dsn: str, *, name: str, size: int = 4, timeout_s: float = 10.0) -> None:
        self._dsn = dsn
        self.name = name
        self.timeout_s = timeout_s
        self._free = asyncio.Semaphore(size)
        self._idle: list[Connection] = []
        self._closed = False

    @asynccontextmanager
    async def use(self, *, writes: bool = False, timeout_s: float | None = None) -> AsyncIterator[Connection]:
        """A connection for the time of the block.

        Raises the tree of `chain.errors`; Unavailable, or OutcomeUnknown if the block `writes`.
        """
        limit = self.timeout_s if timeout_s is None else timeout_s
        connection: Connection | None = None
        sent = False
        try:
            async with asyncio.timeout(limit):
                async with self._free:
                    connection = await self._take()
                    sent = writes
                    try:
                        yield connection
                    except asyncpg.PostgresError as error:
                        if isinstance(error, _UNREACHABLE):
                            connection.terminate()
                        raise
                    except BaseException:
                        connection.terminate()
                        raise
                    finally:
                        self._give_back(connection)
        except DRIVER_ERRORS as error:
            raise translate(error, self.name, outcome_unknown=sent) from error

    @asynccontextmanager
    async def transaction(self, *, writes: bool = False) -> AsyncIterator[Connection]:
        """The same, within a transaction.

        If the block fails, the connection is cut instead of rolled back: a peer that hangs would not answer
        to a ROLLBACK either, and the one timeout has been spent by then.
        """
        async with self.use(writes=writes) as connection:
            await connection.execute("begin" if writes else "begin read only")
            try:
                yield connection
            except BaseException:
                connection.terminate()
                raise
            await connection.execute("commit")

    async def connect(self) -> Connection:
        """A connection of the caller's own, to be closed by the caller."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._connect()
        except DRIVER_ERRORS as error:
            raise translate(error, self.name) from error

    async def close(self) -> None:
        """Closes what is idle; what is in use is cut when its block ends."""
        self._closed = True
        while self._idle:
            self._idle.pop().terminate()

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await self._connect()

    async def _connect(self) -> Connection:
        if self._closed:
            raise asyncpg.InterfaceError("the store is closed")
        return await asyncpg.connect(
            self._dsn,
            statement_cache_size=100,
            server_settings={
                "application_name": f"geochain {self.name}",
                "idle_in_transaction_session_timeout": str(int(self.timeout_s * 1000)),
                "lock_timeout": str(int(self.timeout_s * 1000)),
                # A machine that vanishes leaves its locks behind: the server asks after it and lets them go.
                "tcp_keepalives_idle": "5",
                "tcp_keepalives_interval": "5",
                "tcp_keepalives_count": "3",
                "timezone": "UTC",
                "jit": "off",
                # Every query of ours goes by an index. Plans are kept: one that was made when the log was
                # short must not scan a long log.
                "enable_seqscan": "off",
                # What a function finds after it got the node's lock is what the last holder left behind.
                "default_transaction_isolation": "read committed",
            },
        )

    def _give_back(self, connection: Connection) -> None:
        if self._closed:
            connection.terminate()
        elif not connection.is_closed():
            self._idle.append(connection)


def translate(error: Exception, peer: str, *, outcome_unknown: bool = False) -> ChainError:
    """The error of our tree that says what a driver's error means."""
    if isinstance(error, asyncpg.PostgresError):
        ours = _translate_ours(error)
        if ours is not None:
            return ours
        if isinstance(error, asyncpg.InsufficientPrivilegeError):
            return Refused(
                f"{peer}: {error}",
                hint="the role needs CREATE on the database, or must own the schema `chain`",
            )
        if isinstance(error, asyncpg.InvalidPasswordError | asyncpg.InvalidAuthorizationSpecificationError):
            return BadConfig(f"{peer} does not let us in: {error}", hint="check dsn and password_file")
        if isinstance(error, asyncpg.InvalidCatalogNameError):
            return BadConfig(f"{peer}: {error}", hint="create the database, or check the dsn")
        if isinstance(error, _UNPREPARED):
            return NotPrepared(
                f"{peer} is not prepared: {error}", hint="start its daemon: chainctl serve node"
            )
        if type(error) is asyncpg.DataError:  # the driver's own; the server's are of its subclasses
            return BadInput(f"{peer} was not asked: {error}")
        if isinstance(error, asyncpg.IntegrityConstraintViolationError | asyncpg.DataError):
            return Corrupt(f"{peer} refused the data: {error}")
    if isinstance(error, _UNREACHABLE):
        if isinstance(error, TimeoutError):
            reason = "no answer in time"
        elif isinstance(error, OSError) and error.errno:
            reason = os.strerror(error.errno).lower()
        else:
            reason = str(error) or type(error).__name__
        if outcome_unknown:
            return OutcomeUnknown(
                f"{peer}: {reason}, while a write was under way",
                hint="try again with the same event ids: what was stored is not stored twice",
            )
        return Unavailable(f"{peer}: {reason}", hint="is it up, and can it be reached from here?")
    return ChainError(f"{peer}: {type(error).__name__}: {error}")


def _translate_ours(error: asyncpg.PostgresError) -> ChainError | None:
    state = str(error.sqlstate or "")
    if not state.startswith("GC"):
        return None
    fields = error.as_dict()
    message = str(fields.get("message", error))
    hint = str(fields.get("hint") or "")
    detail = json.loads(str(fields.get("detail") or "{}"))
    if state == "GC001":
        return WrongRevision(message, current=int(detail["current"]), hint=hint)
    if state == "GC002":
        return NotHead(message, head=detail.get("head"), hint=hint)
    return _OURS.get(state, ChainError)(message, hint=hint)
