"""Users, agents, sessions, results and candles to put into a database."""

import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4, uuid5

import numpy as np
from sqlalchemy import insert

from db.engine import Database
from db.models import (
    AgentRecord,
    NewCertificate,
    NewResult,
    NewSession,
    ResultRecord,
    SessionRecord,
)
from db.repositories.agents import AgentContent, AgentRepository
from db.repositories.results import ResultRepository
from db.repositories.sessions import SessionRepository
from db.repositories.users import SignInRepository
from trading.candles import CandleSeries

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR_MS = 3_600_000
CONTENT = AgentContent(
    mode="monk",
    model="simulated/trend",
    indicators=("rsi_14",),
    strategy_prompt="Follow the trend.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user, and transactions as that user."""

    id: UUID
    database: Database

    async def add_agent(self, name: str = "Alpha", **changes: Any) -> AgentRecord:
        async with self.database.for_user(self.id) as session:
            return await AgentRepository(session).add(
                user_id=self.id, name=name, **({"api_key_id": None, "content": CONTENT} | changes)
            )

    async def add_session(self, agent: AgentRecord, **changes: Any) -> SessionRecord:
        async with self.database.for_user(self.id) as session:
            return await SessionRepository(session).add(a_session(self.id, agent, **changes))


def a_session(user_id: UUID, agent: AgentRecord, **changes: Any) -> NewSession:
    values: dict[str, Any] = {
        "user_id": user_id,
        "agent_id": agent.id,
        "agent_version_id": agent.agent_version_id,
        "agent_name": agent.name,
        "workflow_id": f"backtest-{uuid4()}",
        "rules": {"fee_rate": 0.001},
        "type": "backtest",
        "status": "running",
        "mode": agent.mode,
        "asset": "BTC/USDT",
        "timeframe": "1h",
        "starting_capital": 10_000.0,
    }
    return NewSession(**(values | changes))


def a_result(session: SessionRecord, **changes: Any) -> NewResult:
    values: dict[str, Any] = {
        "id": uuid5(session.id, "result"),
        "session_id": session.id,
        "user_id": session.user_id,
        "agent_id": session.agent_id,
        "agent_version_id": session.agent_version_id,
        "agent_name": session.agent_name,
        "model": "simulated/trend",
        "type": session.type,
        "asset": session.asset,
        "mode": session.mode,
        "timeframe": session.timeframe,
        "start_date": START,
        "end_date": START + timedelta(days=30),
        "duration_seconds": 2_592_000.0,
        "total_trades": 4,
        "winning_trades": 3,
        "losing_trades": 1,
        "total_pnl_amount": 500.0,
        "total_pnl_pct": 5.0,
        "win_rate": 75.0,
        "max_drawdown_pct": 2.5,
        "starting_capital": 10_000.0,
        "ending_capital": 10_500.0,
        "metrics": {},
        "config": {},
        "equity_curve": [{"time": 1, "value": 10_000.0}],
    }
    return NewResult(**(values | changes))


def a_series(length: int, *, start_ms: int = 1_704_067_200_000, seed: int = 7) -> CandleSeries:
    """An hourly random walk whose prices have all the digits that a float can have."""
    chance = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(chance.normal(0, 0.01, length)))
    opened = np.concatenate([[100.0], close[:-1]])
    return CandleSeries(
        open_time=start_ms + HOUR_MS * np.arange(length, dtype=np.int64),
        open=opened,
        high=np.maximum(opened, close) * 1.001,
        low=np.minimum(opened, close) * 0.999,
        close=close,
        volume=chance.uniform(0, 1_000, length),
    )


async def new_account(database: Database) -> Account:
    async with database.as_system() as session:
        user, _ = await SignInRepository(session).get_or_create(f"user_{uuid4().hex}")
    return Account(id=user.id, database=database)


def a_trade(session_id: UUID, number: int, pnl: float | None, **changes: Any) -> dict[str, Any]:
    exit_ = {"exit_price": 110.0, "pnl_amount": pnl, "exit_type": "signal"} if pnl else {}
    return {
        "id": uuid5(session_id, f"trade-{number}"),
        "session_id": session_id,
        "trade_number": number,
        "type": "long",
        "entry_price": 100.0,
        "entry_time": START,
        "entry_candle": number,
        "decided_candle": number,
        "size": 1.0,
        "margin": 100.0,
        **exit_,
        **changes,
    }


def a_decision(session_id: UUID, candle: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": uuid4(),
        "session_id": session_id,
        "candle_number": candle,
        "timestamp": START + timedelta(hours=candle),
        "candle_data": {"close": 1.5},
        "indicator_values": {"rsi_14": None},
        "reasoning": "Because.",
        "decision": "hold",
        "prompt_hash": "0" * 64,
        "prompt_text": zlib.compress(b"[]"),
        "model_requested": "simulated/trend",
        **changes,
    }


async def store(account: Account, table: type, *rows: dict[str, Any]) -> None:
    async with account.database.for_user(account.id) as session:
        for row in rows:
            await session.execute(insert(table).values(**row))


async def add_test(account: Account, agent: Any, **changes: Any) -> SessionRecord:
    """A finished test with its result."""
    tested = await account.add_session(agent, status="completed")
    async with account.database.for_user(account.id) as session:
        await ResultRepository(session).add(a_result(tested, **changes))
    return tested


def a_certificate(result: ResultRecord, **changes: Any) -> NewCertificate:
    folder = f"certificates/{result.id}"
    values: dict[str, Any] = {
        "id": uuid5(result.id, "certificate"),
        "result_id": result.id,
        "user_id": result.user_id,
        "verification_code": f"ALX-{uuid4().hex[:12]}",
        "agent_name": result.agent_name,
        "agent_version": 1,
        "model": result.model,
        "mode": "omni",
        "test_type": "backtest",
        "asset": result.asset,
        "timeframe": result.timeframe,
        "period_start": START,
        "period_end": START,
        "pnl_pct": 4.25,
        "total_trades": 3,
        "max_drawdown_pct": 1.5,
        "seal": "own_data",
        "share_url": "http://api.test/verify/ALX",
        "pdf_key": f"{folder}/certificate.pdf",
        "image_key": f"{folder}/certificate.png",
        "qr_key": f"{folder}/qr.png",
        "bundle_key": f"{folder}/bundle.zip",
        "includes_reasoning": False,
        "equity": [[1, 2.5]],
        "engine_version": "1.2.3",
        "canonical": {"cagr": 7.1e37, "third": 1 / 3},
        "canonical_sha256": "ab" * 32,
        "signature": "c2ln",
        "public_key_id": "ab" * 8,
        "trace_sha256": "cd" * 32,
        "issued_at": START,
    }
    return NewCertificate(**(values | changes))
