"""The database: its pools, and transactions that say whose they are."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any
from uuid import UUID

import orjson
from psycopg import AsyncConnection, OperationalError
from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import greenlet_spawn

APP_ROLE = "alphalab_app"
SYSTEM_ROLE = "alphalab_system"
OWNER_ROLE = "alphalab_owner"

_CONNECT_TIMEOUT_S = 5
_POOL_TIMEOUT_S = 15
# A peer that vanished without a word is noticed in half a minute, not in hours.
_DEAD_PEER_LIMITS = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_SYSTEM_POOL_SIZE = 4
# Compiling a plan costs more than any query here; row-level security makes estimates look large.
_SERVER_OPTIONS = "-c timezone=UTC -c jit=off"
_SET_USER = "SELECT set_config('app.user_id', %s, true)"
_KEEP_USER = "SELECT set_config('app.user_id', %s, false)"
_NOBODY = ""
_TAKE_TURN = text("SELECT pg_try_advisory_lock(:name)")
_END_TURN = text("SELECT pg_advisory_unlock(:name)")
# Where a pooled connection notes which user it is set to.
_USER = "app.user_id"


class Database:
    """Transactions as a user, held to that user's rows, or as the system, held to none."""

    def __init__(
        self, *, app: AsyncEngine, steps: AsyncEngine, system: AsyncEngine, turns: AsyncEngine
    ) -> None:
        self._app = app
        self._steps = steps
        self._system = system
        self._turns = turns

    @classmethod
    def connect(cls, url: str, *, system_url: str | None = None, pool_size: int = 10) -> "Database":
        """Prepare the pools; nothing is opened until it is used.

        One login is enough: it was granted both roles when it migrated the database.
        """
        system_url = system_url or url
        pool, system_pool = _pool(pool_size), _pool(min(pool_size, _SYSTEM_POOL_SIZE))
        return cls(
            app=_engine(url, role=APP_ROLE, pool=pool),
            steps=_engine(url, role=APP_ROLE, pool=pool, is_autocommit=True),
            system=_engine(system_url, role=SYSTEM_ROLE, pool=system_pool),
            turns=_engine(system_url, role=SYSTEM_ROLE, pool=_NO_POOL, is_autocommit=True),
        )

    @asynccontextmanager
    async def for_user(self, user_id: UUID) -> AsyncIterator[AsyncSession]:
        """One transaction that sees and writes this user's rows; commits at exit."""
        async with await _opened(self._app, str(user_id)) as session:
            yield session
            await session.commit()

    @asynccontextmanager
    async def statements_for_user(self, user_id: UUID) -> AsyncIterator[AsyncConnection]:
        """The driver's own connection, held to this user's rows; each statement commits itself.

        For the few statements that every candle pays for: one round trip each. The user is a
        setting of the connection here, changed whenever another user's turn comes; no other code
        gets at these connections.
        """
        pooled = await self._steps.raw_connection()
        driver = pooled.driver_connection
        assert isinstance(driver, AsyncConnection)  # noqa: S101 - the driver this project uses
        try:
            if pooled.info.get(_USER) != user_id:
                pooled.info.pop(_USER, None)
                await driver.execute(_KEEP_USER, (str(user_id),))
                pooled.info[_USER] = user_id
            yield driver
        except (OperationalError, ReadOnlySqlTransaction):
            # The server has gone, or is no longer the one that may write: so are all of the pool.
            await greenlet_spawn(pooled.invalidate)
            await self._steps.dispose()
            raise
        finally:
            await greenlet_spawn(pooled.close)

    @asynccontextmanager
    async def for_nobody(self) -> AsyncIterator[AsyncSession]:
        """One transaction that sees no user's rows, for what is published; commits at exit."""
        async with await _opened(self._app, _NOBODY) as session:
            yield session
            await session.commit()

    @asynccontextmanager
    async def as_system(self) -> AsyncIterator[AsyncSession]:
        """One transaction past row-level security, for what has no user; commits at exit."""
        async with await _opened(self._system, _NOBODY) as session:
            yield session
            await session.commit()

    @asynccontextmanager
    async def turn(self, name: int) -> AsyncIterator[bool]:
        """Whether the turn of that name is ours: nobody else then has it until the block ends.

        It hangs on a connection of its own, which is in no pool and no transaction: the block may
        take its time, and a process that dies leaves its turn to others.
        """
        async with self._turns.connect() as connection:
            is_ours = bool(await connection.scalar(_TAKE_TURN, {"name": name}))
            try:
                yield is_ours
            finally:
                if is_ours:
                    await connection.execute(_END_TURN, {"name": name})

    async def dispose(self) -> None:
        """Close all pools."""
        for engine in (self._app, self._steps, self._system, self._turns):
            await engine.dispose()


def normalized_url(url: str) -> URL:
    """Return the URL with this project's driver, whatever PostgreSQL scheme it came with."""
    parsed = make_url(url)
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise ValueError(f"not a PostgreSQL address: {parsed.render_as_string(hide_password=True)}")
    return parsed.set(drivername="postgresql+psycopg")


_NO_POOL: Mapping[str, Any] = MappingProxyType({"poolclass": NullPool})


def _pool(size: int) -> Mapping[str, Any]:
    return {
        "pool_size": size,
        "max_overflow": 0,
        "pool_timeout": _POOL_TIMEOUT_S,
        "pool_use_lifo": True,
    }


def _engine(
    url: str, *, role: str, pool: Mapping[str, Any], is_autocommit: bool = False
) -> AsyncEngine:
    address = normalized_url(url)
    given = address.query.get("options", "")
    options = " ".join([*([given] if isinstance(given, str) else given), _SERVER_OPTIONS])
    return create_async_engine(
        address.difference_update_query(["options"]),
        connect_args={
            "options": f"{options} -c role={role}".strip(),
            "connect_timeout": _CONNECT_TIMEOUT_S,
            **_DEAD_PEER_LIMITS,
        },
        isolation_level="AUTOCOMMIT" if is_autocommit else "READ COMMITTED",
        **pool,
        hide_parameters=True,  # an error's text may end up in a log or in a workflow's history
        json_serializer=_to_json,
        json_deserializer=orjson.loads,
    )


async def _opened(engine: AsyncEngine, user_id: str) -> AsyncSession:
    """Begin a transaction; its first statement also finds out whether the connection still lives.

    That takes the place of a ping per checkout: when the server was restarted, the pool drops
    what it holds, and one new connection is tried.
    """
    try:
        return await _begun(engine, user_id)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    return await _begun(engine, user_id)


async def _begun(engine: AsyncEngine, user_id: str) -> AsyncSession:
    session = AsyncSession(engine, expire_on_commit=False)
    try:
        connection = await session.connection()
        await connection.exec_driver_sql(_SET_USER, (user_id,))
    except BaseException:
        await session.close()
        raise
    return session


def _to_json(value: object) -> str:
    return orjson.dumps(value).decode()
