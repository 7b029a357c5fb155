"""What only backtests store: the candles that one finds whose range had to be fetched first."""

from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.models.sessions import MOVING_PRESETS
from db.session_windows import SessionWindow

# A session that had its candles and lost them has a fingerprint, and gets no others.
_UNPREPARED = text("""
    SELECT s.asset, s.timeframe, s.start_date, s.end_date, s.warm_up_candles, s.blind,
        s.date_preset = ANY (:moving) IS TRUE AS is_moving,
        CAST(s.indicator_readiness_threshold AS float8) AS readiness_pct,
        v.indicators, v.custom_indicators
    FROM trading_sessions s JOIN agent_versions v ON v.id = s.agent_version_id
    WHERE s.id = :session_id AND s.type = 'backtest'
        AND s.data_set_id IS NULL AND s.data_fingerprint IS NULL
""")

_PREPARE = text("""
    UPDATE trading_sessions SET data_set_id = :data_set_id, data_source = :source,
        start_date = :start_date, end_date = :end_date, warm_up_candles = :warm_up_candles,
        total_candles = :total_candles, first_decision_candle = :first_decision_candle,
        data_fingerprint = :data_fingerprint
    WHERE id = :session_id AND data_set_id IS NULL AND data_fingerprint IS NULL
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpreparedBacktest:
    """A backtest that has no candles yet; one that `is_moving` ends at the newest candle."""

    asset: str
    timeframe: str
    start_date: datetime
    end_date: datetime
    warm_up_candles: int
    blind: bool
    is_moving: bool
    readiness_pct: float
    indicators: list[str]
    custom_indicators: list[dict[str, str]]


class BacktestSessionRepository:
    """Backtests, within the caller's transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def unprepared(self, session_id: UUID) -> UnpreparedBacktest | None:
        """The session, unless it had its candles already or is not there."""
        result = await self._session.execute(
            _UNPREPARED, {"session_id": session_id, "moving": list(MOVING_PRESETS)}
        )
        row = result.mappings().one_or_none()
        return None if row is None else UnpreparedBacktest(**row)

    async def prepare(
        self, session_id: UUID, *, data_set_id: UUID, source: str, window: SessionWindow
    ) -> None:
        """Fix what the session runs on; of two attempts, the first counts."""
        await self._session.execute(
            _PREPARE,
            asdict(window)
            | {"session_id": session_id, "data_set_id": data_set_id, "source": source},
        )
