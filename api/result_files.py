"""A result as a file to take away: JSON, one CSV, or several of them zipped.

It is made while it is sent. Of trades, decisions and candles only a page is in memory, read in a
transaction of its own: however slowly somebody downloads, no connection to the database waits.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from api.schemas.results import ExportFormat, ExportPart, ResultDetail, Thought, TradeOut
from db.engine import Database
from db.models.results import ResultRecord
from db.paging import numbered_pages
from db.repositories.decisions import DecisionRepository
from db.repositories.steps import SteppedEquity, StepRepository
from db.repositories.trades import TradeRepository
from integrations.archives import Member, Row, Table, csv_of, json_of, zip_of
from trading.candles import Timeframe, asset_id

ROWS_PER_PAGE = 100
EQUITY_ROWS_PER_PAGE = 2_000  # four numbers each, where others have texts
_NAME_LENGTH = 40
_UNSAFE = re.compile(r"[^A-Za-z0-9]+")

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFile:
    """What is sent, under which name."""

    name: str
    media_type: str
    content: AsyncIterator[bytes]


def result_file(
    database: Database, result: ResultRecord, format: ExportFormat, parts: Sequence[ExportPart]
) -> ResultFile:
    """The file of a result; several parts as CSV come in one archive."""
    tables, name = [_TABLES[part](database, result) for part in parts], _file_name(result)
    if format == "json":
        content = _json(result, tables)
        return ResultFile(name=f"{name}.json", media_type="application/json", content=content)
    if len(tables) > 1:
        content = _zip(tables)
        return ResultFile(name=f"{name}.zip", media_type="application/zip", content=content)
    (table,) = tables
    return ResultFile(
        name=f"{name}-{table.name}.csv",
        media_type="text/csv; charset=utf-8",
        content=csv_of(table),
    )


def _trades(database: Database, result: ResultRecord) -> Table:
    pages = numbered_pages(
        database,
        result.user_id,
        lambda session, after: TradeRepository(session).after(
            result.session_id, after, limit=ROWS_PER_PAGE
        ),
        lambda trade: trade.trade_number,
    )
    return Table(
        name="trades",
        columns=tuple(TradeOut.model_fields),
        pages=_shaped(pages, lambda trade: TradeOut.of(trade).model_dump(mode="json")),
    )


def _reasoning(database: Database, result: ResultRecord) -> Table:
    twins = {"indicator_values"}
    pages = numbered_pages(
        database,
        result.user_id,
        lambda session, after: DecisionRepository(session).after(
            result.session_id, after, limit=ROWS_PER_PAGE
        ),
        lambda decision: decision.candle_number,
    )
    return Table(
        name="reasoning",
        columns=[name for name in Thought.model_fields if name not in twins],
        pages=_shaped(pages, lambda each: Thought.of(each).model_dump(mode="json", exclude=twins)),
    )


def _equity(database: Database, result: ResultRecord) -> Table:
    pages = numbered_pages(
        database,
        result.user_id,
        lambda session, after: StepRepository(session).equity_after(
            result.session_id, after, limit=EQUITY_ROWS_PER_PAGE
        ),
        lambda step: step.candle_number,
    )
    return Table(
        name="equity",
        columns=("candle_number", "time", "value", "drawdown"),
        pages=_equity_rows(pages, result),
    )


_TABLES: Mapping[ExportPart, Callable[[Database, ResultRecord], Table]] = MappingProxyType(
    {"trades": _trades, "reasoning": _reasoning, "equity": _equity}
)


async def _shaped(
    pages: AsyncIterator[Sequence[Record]], shape: Callable[[Record], Row]
) -> AsyncIterator[Sequence[Row]]:
    def shaped(page: Sequence[Record]) -> list[Row]:
        return [shape(record) for record in page]

    async for page in pages:
        yield await asyncio.to_thread(shaped, page)


async def _equity_rows(
    pages: AsyncIterator[Sequence[SteppedEquity]], result: ResultRecord
) -> AsyncIterator[Sequence[Row]]:
    """Each candle's close, as the result's curve has it: the last point is the one after the end.

    It is not known to be the last one before the next page turns out to be empty.
    """
    timeframe_ms = Timeframe.parse(result.timeframe).milliseconds
    peak, held = result.starting_capital, list[SteppedEquity]()

    def row(step: SteppedEquity) -> Row:
        nonlocal peak
        peak = max(peak, step.equity)
        return {
            "candle_number": step.candle_number,
            "time": step.open_time + timeframe_ms,
            "value": step.equity,
            "drawdown": 0.0 - (peak - step.equity) / peak * 100,
        }

    async for page in pages:
        *settled, last = [*held, *page]
        held = [last]
        yield [row(step) for step in settled]
    yield [row(replace(step, equity=result.ending_capital)) for step in held]


async def _json(result: ResultRecord, tables: Sequence[Table]) -> AsyncIterator[bytes]:
    yield b'{"result":' + ResultDetail.of_record(result).model_dump_json().encode()
    for table in tables:
        yield f',"{table.name}":'.encode()
        async for piece in json_of(table.pages):
            yield piece
    yield b"}"


def _zip(tables: Sequence[Table]) -> AsyncIterator[bytes]:
    return zip_of(Member(name=f"{table.name}.csv", content=csv_of(table)) for table in tables)


def _file_name(result: ResultRecord) -> str:
    """Letters, digits and hyphens only, whatever the agent is called."""
    agent = _UNSAFE.sub("-", result.agent_name)[:_NAME_LENGTH].strip("-").lower()
    parts = ["alphalab", agent, asset_id(result.asset), result.timeframe, result.id.hex[:8]]
    return "-".join(_UNSAFE.sub("-", part) for part in parts if part)
