"""Recordings of small tests, and their bundles."""

import asyncio
import io
import random
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime

from certificates.bundle import Decided, Material, SignedDocument, bundle, trace_of
from certificates.canonical import AgentFacts, Document, RunFacts
from certificates.composition import Circumstances, compose
from certificates.records import (
    DecisionRecord,
    reasoning_hash,
    sighting_records,
    trade_records,
)
from certificates.signing import SigningKey
from tests.issuing import KEY
from tests.trading.scenarios import HOUR, make_rules
from tests.trading.test_parity import recorded
from trading.candles import Candle, CandleSeries, Timeframe
from trading.decisions import Action, Decision, OrderTerms
from trading.matching import MINUTE_MS
from trading.orders import ExitType
from trading.parity import Recording
from trading.rules import Mode
from trading.simulation import Sighting

ISSUED = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)
START = 1_700_006_400_000  # a midnight
PAGE = 7


def wavy(count: int, start: int = START) -> CandleSeries:
    """Hourly candles of a market that rises and falls by several percent, with a gap."""
    rng, rows, price = random.Random(7), [], 97_123.4567
    for i in range(count):
        opening = price
        price *= 1 + rng.uniform(-0.02, 0.021)
        high, low = max(opening, price) * 1.003, min(opening, price) * 0.997
        time = start + (i if i < count // 2 else i + 2) * HOUR
        rows.append((time, opening, high, low, price, rng.uniform(1, 99)))
    return CandleSeries.from_rows(rows)


def backtest() -> Recording:
    """Sixty candles, a few trades of either side, costs and a risk cap."""
    decisions = {
        i: Decision(
            action=(Action.LONG, Action.HOLD, Action.CLOSE, Action.SHORT, Action.CLOSE)[i // 5 % 5],
            order=OrderTerms(size=0.25, stop_loss_distance=0.0213, take_profit_price=None)
            if i // 5 % 5 in (0, 3)
            else None,
        )
        for i in range(0, 60, 5)
    }
    rules = make_rules(fee_rate=0.001, slippage_rate=0.0005, max_loss_per_trade=0.03)
    return recorded(wavy(60), decisions, rules)


def forward_test() -> Recording:
    """Forty candles, an exit by a minute seen of a forming candle, stopped by its user."""
    series = wavy(40)
    entry = float(series.open[6])
    stop = entry * 0.99
    low = min(float(series.low[7]), stop * 0.999)
    rows = [list(row) for row in series.rows()]
    rows[6][3], rows[7][3] = max(rows[6][3], stop * 1.001), low
    series = CandleSeries.from_rows(rows)
    opened = int(series.open_time[7])
    minute = Candle(
        open_time=opened + 5 * MINUTE_MS,
        open=stop * 1.0001,
        high=stop * 1.0002,
        low=stop * 0.9998,
        close=stop * 0.9999,
        volume=3.25,
    )
    decisions = {
        5: Decision(action=Action.LONG, order=OrderTerms(stop_loss_price=stop, size=0.5)),
        12: Decision(action=Action.SHORT, order=OrderTerms(size=0.4)),
        20: Decision(action=Action.CLOSE),
        30: Decision(action=Action.LONG, order=OrderTerms(size=0.3)),
    }
    sightings = {7: Sighting(opened_at=opened, minute=minute)}
    rules = make_rules(fee_rate=0.001, slippage_rate=0.0005)
    return recorded(series, decisions, rules, ending=ExitType.MANUAL, sightings=sightings)


def words(candle: int) -> str:
    return f"At candle {candle}: „steigt“ 📈 by {candle / 7} %."


def decided(recording: Recording) -> list[Decided]:
    return [
        Decided(
            record=DecisionRecord(
                candle=candle,
                action=each.action,
                order=each.order,
                confidence_pct=73.5,
                reasoning_sha256=reasoning_hash(words(candle)),
                prompt_sha256=reasoning_hash(f"prompt {candle}"),
                model="vendor/model-1",
                live_price=None,
                late=False,
                invalid_reply=False,
            ),
            reasoning=words(candle),
        )
        for candle, each in sorted(recording.decisions.items())
    ]


def paged(found: Sequence[Decided]) -> Callable[[], AsyncIterator[Sequence[Decided]]]:
    async def pages() -> AsyncIterator[Sequence[Decided]]:
        for begin in range(0, len(found), PAGE):
            yield found[begin : begin + PAGE]

    return pages


def material_of(recording: Recording) -> Material:
    return Material(
        window=recording.window,
        decisions=paged(decided(recording)),
        sightings=sighting_records(recording),
        trades=trade_records(recording),
    )


def timeframe_of(recording: Recording) -> str:
    length = recording.rules.timeframe_ms
    return next(each.value for each in Timeframe if each.milliseconds == length)


def circumstances(recording: Recording, *, includes_reasoning: bool = False) -> Circumstances:
    is_backtest = recording.ending is ExitType.END_OF_TEST
    return Circumstances(
        code="ALX-2026-1127-K7M3Q",
        issued_at=ISSUED,
        engine_version="1.2.3",
        agent=AgentFacts(
            name="Wave „Rider“",
            version=3,
            content_hash="ab" * 32,
            model="vendor/model-1",
            mode=Mode.OMNI,
        ),
        test=RunFacts(
            type="backtest" if is_backtest else "forward",
            asset="BTC/USDT",
            timeframe=timeframe_of(recording),
            period_start="2023-11-15T00:00:00Z",
            period_end="2023-11-17T14:00:00Z",
            blind=False,
            decision_mode="every_n_candles",
            decision_interval_candles=5,
            first_decision_candle=0,
            end_reason="end_of_test" if is_backtest else "stopped",
            ending=recording.ending,
        ),
        data_source="exchange:binance",
        missed_candles=2,
        paused_candles=1,
        model_source="openrouter",
        trials=4,
        includes_reasoning=includes_reasoning,
    )


async def composed(recording: Recording, *, includes_reasoning: bool = False) -> Document:
    told = circumstances(recording, includes_reasoning=includes_reasoning)
    return compose(told, recording, await trace_of(material_of(recording)))


def bundled(
    recording: Recording, *, includes_reasoning: bool = False, key: SigningKey = KEY
) -> bytes:
    """The bundle of a recording, as one piece."""

    async def made() -> bytes:
        document = await composed(recording, includes_reasoning=includes_reasoning)
        signed = SignedDocument.sign(document, key)
        return await joined(bundle(signed, material_of(recording)))

    return asyncio.run(made())


async def joined(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


def files_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive_of(files: Mapping[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer
