"""The candles of a demo: a file of real ones, or else the simulated market."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from db.engine import Database
from db.repositories.data_sets import UPLOAD, SharedDataRepository
from integrations.candle_files import read_candle_file
from local.demo_client import ApiClient, DemoFailed
from local.demo_view import counted
from local.simulators.exchange import SIMULATED_SOURCE, simulated_candles
from trading.candles import CandleSeries, Timeframe, parse_asset

DEFAULT_ASSET = "BTC/USDT"
DEFAULT_TIMEFRAME = "1h"

# More than a demo trades, so that indicators are warm and longer tests have candles as well.
SIMULATED_CANDLES = 3_000
SIMULATED_START_MS = 1_704_067_200_000  # 2024-01-01
SEED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """What is traded; `file` is None where the market is simulated, `content` is the file's."""

    asset: str
    timeframe: Timeframe
    series: CandleSeries
    file: Path | None
    content: bytes = b""

    @property
    def source(self) -> str:
        """What the API calls the candles' origin."""
        return SIMULATED_SOURCE if self.file is None else UPLOAD

    @property
    def description(self) -> str:
        count = f"{counted(len(self.series), 'candle')} of {self.asset} {self.timeframe}"
        if self.file is None:
            return f"{count} from the SIMULATED market: a random walk, no real prices"
        return f"{count} uploaded from {self.file}"

    def newest(self, count: int) -> CandleSeries:
        return self.series.slice(max(0, len(self.series) - count), len(self.series))


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From the open of the first candle to the close of the last."""

    start: datetime
    end: datetime

    @classmethod
    def of(cls, series: CandleSeries, timeframe: Timeframe) -> "Span":
        first, last = (int(series.open_time[index]) for index in (0, -1))
        return cls(start=_instant(first), end=_instant(last + timeframe.milliseconds))


def market_of(file: Path | None, *, asset: str | None, timeframe: str | None) -> Market:
    """Read the file, all of it, or make up the simulated market.

    Raises `TradingError` naming what is wrong with the file, the asset or the timeframe,
    `DemoFailed` when a file comes without them, and `OSError`.
    """
    if file is not None and (asset is None or timeframe is None):
        raise DemoFailed(
            f"Say what the candles of {file} are: --asset BTC/USDT --timeframe 1h, for example."
        )
    parsed = Timeframe.parse(timeframe or DEFAULT_TIMEFRAME)
    name = parse_asset(asset or DEFAULT_ASSET)
    if file is None:
        series = simulated_candles(
            name, parsed, start_ms=SIMULATED_START_MS, count=SIMULATED_CANDLES, seed=SEED
        )
        return Market(asset=name, timeframe=parsed, series=series, file=None)
    content = file.read_bytes()
    series = read_candle_file(content, file.name, parsed)
    return Market(asset=name, timeframe=parsed, series=series, file=file, content=content)


async def store_simulated(market: Market, database: Database) -> None:
    """Store the simulated market, labelled so, for everybody's tests; once and no more."""
    async with database.as_system() as session:
        await SharedDataRepository(session).add(
            asset=market.asset,
            timeframe=market.timeframe,
            source=market.source,
            series=market.series,
        )


async def upload(market: Market, client: ApiClient) -> None:
    """Hand the file to the API as the user's own candles; once and no more."""
    await client.upload(
        "/api/data/candles/import",
        name="candles" if market.file is None else market.file.name,
        content=market.content,
        fields={"asset": market.asset, "timeframe": market.timeframe.value},
    )


async def check_served(market: Market, traded: CandleSeries, client: ApiClient) -> None:
    """Make sure that these candles are what a test would get. Raises `DemoFailed`.

    Of two uploads that cover the same time the API takes the newer one.
    """
    span = Span.of(traded, market.timeframe)
    answer = await client.get(
        "/api/data/candles",
        asset=market.asset,
        timeframe=market.timeframe.value,
        data_source=market.source,
        start=span.start.isoformat(),
        end=span.end.isoformat(),
        limit=len(traded),
    )
    if [candle["close"] for candle in answer["candles"]] != traded.close.tolist():
        raise DemoFailed(
            f"A later upload of {market.asset} {market.timeframe} covers the same time with other "
            "candles, and a test would take those: name another directory with --data-dir."
        )


def _instant(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, tz=UTC)
