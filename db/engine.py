"""The database: its pools, and transactions that say whose they are."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import orjson
from psycopg import AsyncConnection, OperationalError
from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
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
# Where a pooled connection notes which user it is set to.
_USER = "app.user_id"


class Database:
    """Transactions as a user, held to that user's rows, or as the system, held to none."""

    def __init__(self, *, app: AsyncEngine, steps: AsyncEngine, system: AsyncEngine) -> None:
        self._app = app
        self._steps = steps
        self._system = system

    @classmethod
    def connect(cls, url: str, *, system_url: str | None = None, pool_size: int = 10) -> "Database":
        """Prepare the pools; nothing is opened until it is used.

        One login is enough: it was granted both roles when it migrated the database.
        """
        return cls(
            app=_engine(url, role=APP_ROLE, pool_size=pool_size),
            steps=_engine(url, role=APP_ROLE, pool_size=pool_size, is_autocommit=True),
            system=_engine(
                system_url or url, role=SYSTEM_ROLE, pool_size=min(pool_size, _SYSTEM_POOL_SIZE)
            ),
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

    async def dispose(self) -> None:
        """Close all pools."""
        await self._app.dispose()
        await self._steps.dispose()
        await self._system.dispose()


def normalized_url(url: str) -> URL:
    """Return the URL with this project's driver, whatever PostgreSQL scheme it came with."""
    parsed = make_url(url)
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise ValueError(f"not a PostgreSQL address: {parsed.render_as_string(hide_password=True)}")
    return parsed.set(drivername="postgresql+psycopg")


def _engine(url: str, *, role: str, pool_size: int, is_autocommit: bool = False) -> AsyncEngine:
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
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_POOL_TIMEOUT_S,
        pool_use_lifo=True,
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
