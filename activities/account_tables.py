"""What an account holds, as tables of plain rows, read page by page.

Each page is a transaction of its own, so that no connection waits for a slow storage. What changes
meanwhile is in the file as of when it was read.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, TypeVar
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import Database
from db.models import (
    ActivityRecord,
    AgentVersionRecord,
    Base,
    DecisionRecord,
    NotificationRecord,
    ResultRecord,
    TradeRecord,
)
from db.models.exports import AccountPart
from db.paging import numbered_pages
from db.repositories.account_data import AccountCounts, AccountDataRepository, Mark
from db.repositories.decisions import DecisionRepository
from db.repositories.trades import TradeRepository
from db.repositories.users import UserRepository
from integrations.archives import Row, Table

# Decisions have a few kilobytes each, and so has every line of an inbox at most.
ROWS_PER_PAGE = 100
# A curve of a thousand points takes half a megabyte, and a version may have long formulas.
LARGE_ROWS_PER_PAGE = 10
_POINT = ("time", "value", "drawdown")
_CURVES = {"equity_curve", "buy_and_hold_curve"}
# Of no use to anybody else: who it is, and how we keep it from being told twice.
_OURS = {"user_id", "dedup_key"}
_KEYS = {"api_key_id"}


class _Listed(Protocol):
    @property
    def id(self) -> UUID: ...
    @property
    def created_at(self) -> Any: ...


Record = TypeVar("Record")
ListedRecord = TypeVar("ListedRecord", bound=_Listed)
Listed_co = TypeVar("Listed_co", bound=_Listed, covariant=True)


class _Read(Protocol[Listed_co]):
    def __call__(
        self, data: AccountDataRepository, mark: Mark | None, /, *, limit: int
    ) -> Awaitable[Sequence[Listed_co]]: ...


class RowsRead:
    """Counts the records that were read, of so many in all."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0

    def add(self, count: int) -> None:
        self._done += count

    @property
    def percent(self) -> float:
        """Below 100, for the file is not there yet: what was added meanwhile is read as well."""
        return min(self._done / self._total * 100, 99.0) if self._total else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whose data are read, and the count of what has been read."""

    database: Database
    user_id: UUID
    read: RowsRead


def rows_in(counts: AccountCounts, part: AccountPart) -> int:
    """How many records a part of an account is made of."""
    match part:
        case "agent_configs":
            return counts.agents + counts.versions
        case "test_results":
            return 2 * counts.results  # once more for their curves
        case "trade_history":
            return counts.trades
        case "reasoning_traces":
            return counts.decisions
        case "account_settings":
            return counts.notifications + counts.activities


def tables_of(account: Account, parts: Iterable[AccountPart]) -> list[Table]:
    """The tables of these parts; one without columns has rows that are no lines."""
    return [table for part in parts for table in _TABLES[part](account)]


async def profile_of(account: Account) -> Row:
    """Who the user is, and the user's settings."""
    async with account.database.for_user(account.user_id) as session:
        users = UserRepository(session)
        user, settings = await users.get(account.user_id), await users.settings(account.user_id)
    profile = {} if user is None else user.model_dump(exclude={"is_active", "clerk_updated_at"})
    rows = _plain([{"profile": profile, "settings": settings.model_dump(exclude=_OURS)}])
    return rows[0]


def _agents(account: Account) -> list[Table]:
    agents = _listed(account, AccountDataRepository.agents_after, limit=ROWS_PER_PAGE)
    return [
        Table(name="agents", columns=(), pages=_shaped(agents, _OURS | _KEYS)),
        Table(
            name="agent_versions",
            columns=(),
            pages=_shaped(_version_pages(account), {"content_hash"}),
        ),
    ]


def _version_pages(account: Account) -> AsyncIterator[Sequence[AgentVersionRecord]]:
    return _numbered(
        account,
        AccountDataRepository.agent_ids,
        lambda session, agent, after: AccountDataRepository(session).versions_after(
            agent, after, limit=LARGE_ROWS_PER_PAGE
        ),
        lambda version: version.version,
    )


def _results(account: Account) -> list[Table]:
    first, again = (
        _listed(account, AccountDataRepository.results_after, limit=LARGE_ROWS_PER_PAGE)
        for _ in range(2)
    )
    return [
        _table("results", ResultRecord, first, _OURS | _CURVES),
        Table(
            name="equity_curves",
            columns=("result_id", *_POINT),
            pages=_curve_pages(again),
        ),
    ]


async def _curve_pages(
    pages: AsyncIterator[Sequence[ResultRecord]],
) -> AsyncIterator[Sequence[Row]]:
    async for page in pages:
        for result in page:
            yield [
                {"result_id": str(result.id)} | {name: point.get(name) for name in _POINT}
                for point in result.equity_curve
            ]


def _trades(account: Account) -> list[Table]:
    pages = _numbered(
        account,
        AccountDataRepository.session_ids,
        lambda session, test, after: TradeRepository(session).after(
            test, after, limit=ROWS_PER_PAGE
        ),
        lambda trade: trade.trade_number,
    )
    return [_table("trades", TradeRecord, pages)]


def _reasoning(account: Account) -> list[Table]:
    pages = _numbered(
        account,
        AccountDataRepository.session_ids,
        lambda session, test, after: DecisionRepository(session).after(
            test, after, limit=ROWS_PER_PAGE
        ),
        lambda decision: decision.candle_number,
    )
    return [_table("reasoning", DecisionRecord, pages)]


def _inbox(account: Account) -> list[Table]:
    told = _listed(account, AccountDataRepository.notifications_after, limit=ROWS_PER_PAGE)
    done = _listed(account, AccountDataRepository.activities_after, limit=ROWS_PER_PAGE)
    return [
        _table("notifications", NotificationRecord, told, _OURS | {"email_state"}),
        _table("activity", ActivityRecord, done, _OURS),
    ]


_TABLES: Mapping[AccountPart, Callable[[Account], list[Table]]] = MappingProxyType(
    {
        "agent_configs": _agents,
        "test_results": _results,
        "trade_history": _trades,
        "reasoning_traces": _reasoning,
        "account_settings": _inbox,
    }
)


def _table(
    name: str,
    record: type[Base],
    pages: AsyncIterator[Sequence[Any]],
    hidden: Set[str] = frozenset(),
) -> Table:
    """Every column of a record, the hidden ones aside."""
    return Table(
        name=name,
        columns=[each for each in record.model_fields if each not in hidden],
        pages=_shaped(pages, hidden),
    )


async def _shaped(
    pages: AsyncIterator[Sequence[Base]], hidden: Set[str]
) -> AsyncIterator[Sequence[Row]]:
    def shaped(page: Sequence[Base]) -> list[Row]:
        return _plain([record.model_dump(exclude={*hidden}) for record in page])

    async for page in pages:
        yield await asyncio.to_thread(shaped, page)


def _plain(rows: Sequence[Row]) -> list[Row]:
    """Ids and times as texts, as JSON and CSV have them alike."""
    plain: list[Row] = orjson.loads(orjson.dumps(rows, option=orjson.OPT_UTC_Z))
    return plain


async def _listed(
    account: Account, read: _Read[ListedRecord], *, limit: int
) -> AsyncIterator[Sequence[ListedRecord]]:
    mark: Mark | None = None
    while True:
        async with account.database.for_user(account.user_id) as session:
            page = await read(AccountDataRepository(session), mark, limit=limit)
        if not page:
            return
        account.read.add(len(page))
        yield page
        mark = Mark(created_at=page[-1].created_at, id=page[-1].id)


async def _numbered(
    account: Account,
    owners_of: Callable[[AccountDataRepository], Awaitable[Sequence[UUID]]],
    read: Callable[[AsyncSession, UUID, int], Awaitable[Sequence[Record]]],
    number_of: Callable[[Record], int],
) -> AsyncIterator[Sequence[Record]]:
    """What hangs on tests or agents, one by one: each page is found by the index of its table."""
    async with account.database.for_user(account.user_id) as session:
        owners = await owners_of(AccountDataRepository(session))
    for owner in owners:

        def read_one(
            session: AsyncSession, after: int, owner: UUID = owner
        ) -> Awaitable[Sequence[Record]]:
            return read(session, owner, after)

        async for page in numbered_pages(account.database, account.user_id, read_one, number_of):
            account.read.add(len(page))
            yield page
