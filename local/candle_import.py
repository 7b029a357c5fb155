"""Imports a candle file as a shared data set."""

from dataclasses import dataclass
from pathlib import Path

from db.engine import Database
from db.repositories.data_sets import SharedDataRepository
from integrations.candle_files import read_candle_file
from trading.candles import Timeframe, parse_asset

IMPORT = "import"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedCandles:
    """What was stored, or was there already."""

    asset: str
    timeframe: Timeframe
    source: str
    candles: int
    gaps: int
    fingerprint: str
    is_new: bool


async def import_candles(
    database: Database, file: Path, *, asset: str, timeframe: str, source: str | None
) -> ImportedCandles:
    """Store a whole file or nothing of it.

    Raises `TradingError` naming the first thing wrong with the file, the asset or the timeframe.
    """
    parsed = Timeframe.parse(timeframe)
    name = parse_asset(asset)
    series = read_candle_file(file, file.name, parsed)
    label = f"{IMPORT}:{source}" if source else IMPORT
    async with database.as_system() as session:
        _, is_new = await SharedDataRepository(session).add(
            asset=name, timeframe=parsed, source=label, series=series
        )
    return ImportedCandles(
        asset=name,
        timeframe=parsed,
        source=label,
        candles=len(series),
        gaps=series.gaps(parsed),
        fingerprint=series.fingerprint(),
        is_new=is_new,
    )
