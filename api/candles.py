"""Candles and indicators for charts."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from api.data_sets import TimeRange, choose_data_set, epoch_ms, no_candles
from api.errors import Invalid
from api.schemas.arena import instant_of
from api.schemas.market_data import CandleSpanQuery
from db.engine import Database
from db.market_frames import FrameKey, MarketFrames
from db.models.candles import DataSetRecord
from db.repositories.candles import CandleRepository, CandleSpan
from db.repositories.data_sets import DataSetRepository
from trading.candles import CandleSeries, Timeframe
from trading.indicators import IndicatorPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCandles:
    """The candles of a query and the data set they are from."""

    data_set: DataSetRecord
    series: CandleSeries


async def find_candles(database: Database, user_id: UUID, wanted: CandleSpanQuery) -> FoundCandles:
    """Return the candles asked for; none when the range is empty.

    Raises Invalid `NO_CANDLES` when there is no data set of the asset and timeframe.
    """
    timeframe = Timeframe.parse(wanted.timeframe)
    async with database.for_user(user_id) as session:
        candidates = await DataSetRepository(session).candidates(
            wanted.asset, timeframe, source=wanted.data_source
        )
        if not candidates:
            raise no_candles(["query", "asset"])
        data_set = _chosen(candidates, timeframe, wanted)
        series = await CandleRepository(session).load(data_set.id, _span(wanted, timeframe))
    return FoundCandles(data_set=data_set, series=series)


async def find_indicators(
    database: Database,
    frames: MarketFrames,
    user_id: UUID,
    wanted: CandleSpanQuery,
    plan: IndicatorPlan,
) -> list[dict[str, float | int | None]]:
    """Return the plan's values at each candle asked for, warmed up on the candles before them."""
    found = await find_candles(database, user_id, wanted)
    if not len(found.series):
        return []
    timeframe = Timeframe.parse(wanted.timeframe)
    frame = await frames.get(
        user_id,
        FrameKey(
            data_set_id=found.data_set.id,
            start_ms=int(found.series.open_time[0]),
            end_ms=int(found.series.open_time[-1]) + timeframe.milliseconds,
            timeframe=timeframe,
            warm_up=plan.warm_up,
            identifiers=plan.identifiers,
            custom=plan.custom,
        ),
    )
    times = frame.candles.open_time.tolist()
    return [{"time": time, **frame.values(index)} for index, time in enumerate(times)]


def _chosen(
    candidates: Sequence[DataSetRecord], timeframe: Timeframe, wanted: CandleSpanQuery
) -> DataSetRecord:
    """The preferred set, or where a range is given the one that has it."""
    range_ = _range(wanted)
    found = None if range_ is None else choose_data_set(candidates, timeframe, range_)
    return found or candidates[0]


def _range(wanted: CandleSpanQuery) -> TimeRange | None:
    if wanted.start is None or wanted.end is None:
        return None
    return TimeRange(
        start=instant_of(wanted.start, is_end=False), end=instant_of(wanted.end, is_end=True)
    )


def _span(wanted: CandleSpanQuery, timeframe: Timeframe) -> CandleSpan:
    start = None if wanted.start is None else instant_of(wanted.start, is_end=False)
    end = None if wanted.end is None else instant_of(wanted.end, is_end=True)
    if start and end and end <= start:
        raise Invalid("`end` must be after `start`.", ["query", "end"])
    return CandleSpan(
        start_ms=None if start is None else epoch_ms(start),
        end_ms=None if end is None else epoch_ms(end) - timeframe.milliseconds,
        limit=wanted.limit,
        newest=start is None,
    )
