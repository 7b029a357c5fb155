"""Market data: what there is, candles, indicators, and uploads of one's own."""

import asyncio
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, UploadFile

from api.candles import find_candles, find_indicators
from api.data_sets import FIXED_PRESETS
from api.dependencies import CurrentUser, InjectedServices, SignedInRoute
from api.errors import translate_trading_error
from api.indicators import checked_plan
from api.schemas.arena import Asset, TimeframeName
from api.schemas.errors import documented
from api.schemas.market_data import (
    AssetOut,
    AssetsAnswer,
    CandleOut,
    CandlesAnswer,
    CandleSpanQuery,
    DataSetOut,
    DatePresetOut,
    ImportAnswer,
    IndicatorEntry,
    IndicatorPoint,
    IndicatorsAnswer,
    IndicatorsBody,
    IndicatorsQuery,
    PlaybackSpeedOut,
    PresetsAnswer,
    TimeframeOut,
    TimeframesAnswer,
)
from db.models.sessions import MOVING_PRESETS
from db.repositories.data_sets import DataSetRepository
from integrations.candle_files import read_candle_file
from trading.candles import CandleSeries, Timeframe, asset_id
from trading.errors import TradingError
from trading.indicators import catalog
from workflows.policies import PLAYBACK_DELAY

router = APIRouter(
    prefix="/api/data",
    tags=["market data"],
    responses=documented(401, 403, 503),
    route_class=SignedInRoute,
)

IMPORT_PATH = "/api/data/candles/import"

# Offered even before there is data of them, so that a front end has something to show.
_KNOWN_ASSETS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
_KNOWN_TIMEFRAMES = (
    Timeframe.MINUTES_15,
    Timeframe.HOUR_1,
    Timeframe.HOURS_4,
    Timeframe.DAY_1,
)
_ICONS = {"BTC": "₿", "ETH": "Ξ", "SOL": "◎"}
_PRESET_TEXTS = {
    "7d": ("7 days", "The last 7 days"),
    "30d": ("30 days", "The last 30 days"),
    "90d": ("90 days", "The last 90 days"),
    "bull": ("Bull market", "The rise of the winter 2023/24"),
    "crash": ("Crash", "The fall of FTX and what followed"),
    "custom": ("Custom", "Dates of your own"),
}


@router.get("/assets")
async def list_assets(services: InjectedServices, user: CurrentUser) -> AssetsAnswer:
    """Every asset there are candles of, and the usual ones."""
    async with services.database.for_user(user.id) as session:
        stored = {each.asset for each in await DataSetRepository(session).available()}
    names = [*_KNOWN_ASSETS, *sorted(stored.difference(_KNOWN_ASSETS))]
    return AssetsAnswer(assets=[_asset(name, available=name in stored) for name in names])


@router.get("/timeframes")
async def list_timeframes(services: InjectedServices, user: CurrentUser) -> TimeframesAnswer:
    """The usual timeframes and any other there are candles of."""
    async with services.database.for_user(user.id) as session:
        stored = {each.timeframe for each in await DataSetRepository(session).available()}
    return TimeframesAnswer(
        timeframes=[
            TimeframeOut(id=each.value, name=each.label, minutes=each.minutes)
            for each in Timeframe
            if each in _KNOWN_TIMEFRAMES or each.value in stored
        ]
    )


@router.get("/presets")
async def list_presets(_: CurrentUser) -> PresetsAnswer:
    """Ranges and playback speeds to choose from."""
    return PresetsAnswer(
        date_presets=[_preset(name) for name in _PRESET_TEXTS],
        playback_speeds=[
            PlaybackSpeedOut(
                id=speed, name=speed.capitalize(), ms=delay // timedelta(milliseconds=1)
            )
            for speed, delay in PLAYBACK_DELAY.items()
        ],
    )


@router.get("/candles", responses=documented(422))
async def get_candles(
    services: InjectedServices, user: CurrentUser, wanted: Annotated[CandleSpanQuery, Query()]
) -> CandlesAnswer:
    found = await find_candles(services.database, user.id, wanted)
    candles = [CandleOut.of(candle) for candle in found.series]
    return CandlesAnswer(candles=candles, count=len(candles))


@router.get("/indicators", responses=documented(422))
async def get_indicators(
    services: InjectedServices, user: CurrentUser, wanted: Annotated[IndicatorsQuery, Query()]
) -> IndicatorsAnswer:
    """Indicator values candle by candle; `indicators` may repeat or be separated by commas."""
    plan = checked_plan(wanted.indicators, [], part="query")
    return _answer(await find_indicators(services.database, services.frames, user.id, wanted, plan))


@router.post("/indicators", responses=documented(422))
async def compute_indicators(
    services: InjectedServices, user: CurrentUser, wanted: IndicatorsBody
) -> IndicatorsAnswer:
    """The same with a body, and with formulas."""
    plan = checked_plan(wanted.indicators, wanted.custom_indicators)
    return _answer(await find_indicators(services.database, services.frames, user.id, wanted, plan))


@router.get("/indicators/catalog")
async def get_catalog(_: CurrentUser) -> dict[str, list[IndicatorEntry]]:
    """Every indicator by group, with its parameters and the history it needs."""
    return {
        group: [IndicatorEntry.model_validate(entry) for entry in entries]
        for group, entries in catalog().items()
    }


@router.post("/candles/import", status_code=201, responses=documented(413, 422))
async def import_candles(
    services: InjectedServices,
    user: CurrentUser,
    file: Annotated[UploadFile, File(description="CSV or Parquet, up to 64 MiB.")],
    asset: Annotated[Asset, Form()],
    timeframe: Annotated[TimeframeName, Form()],
) -> ImportAnswer:
    """Store one's own candles, all of the file or nothing; nobody else sees them."""
    name, parsed = file.filename or "candles", Timeframe.parse(timeframe)
    async with services.importing:
        series = await asyncio.to_thread(_read, await file.read(), name, parsed)
        async with services.database.for_user(user.id) as session:
            data_set, is_new = await DataSetRepository(session).add_upload(
                user_id=user.id, asset=asset, timeframe=parsed, series=series
            )
    message = "Candles imported" if is_new else "These candles were there already"
    return ImportAnswer(data_set=DataSetOut.of(data_set), message=message)


def _read(content: bytes, name: str, timeframe: Timeframe) -> CandleSeries:
    try:
        return read_candle_file(content, name, timeframe)
    except TradingError as error:
        raise translate_trading_error(error, ["body", "file"]) from None


def _asset(name: str, *, available: bool) -> AssetOut:
    base = name.split("/", maxsplit=1)[0]
    return AssetOut(
        id=asset_id(name), name=name, icon=_ICONS.get(base, base[0]), available=available
    )


def _preset(name: str) -> DatePresetOut:
    title, description = _PRESET_TEXTS[name]
    first, last = FIXED_PRESETS.get(name, (None, None))
    days = MOVING_PRESETS.get(name)
    if first is not None and last is not None:
        days = (last - first).days + 1
    return DatePresetOut(
        id=name,
        name=title,
        description=description,
        days=days,
        start_date=None if first is None else first.isoformat(),
        end_date=None if last is None else last.isoformat(),
    )


def _answer(points: list[dict[str, Any]]) -> IndicatorsAnswer:
    return IndicatorsAnswer(data=[IndicatorPoint.model_validate(point) for point in points])
