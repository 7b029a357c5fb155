"""Results: what a test came to, its trades, and what the agent thought."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BeforeValidator, Field

from api.schemas.agents import Mode
from api.schemas.arena import Asset, Moment, instant_of
from api.schemas.base import Filters, Page, Pagination, Search, Shape, split_words
from db.models.decisions import DecisionRecord
from db.models.results import ResultListed, ResultRecord
from db.models.trades import TradeRecord
from db.repositories.decisions import DecisionFilter
from db.repositories.results import ResultFigures, ResultFilter
from db.repositories.trades import TradeFilter, TradeSummary
from events.durations import display_duration

TestType = Literal["backtest", "forward"]
ExportFormat = Literal["json", "csv"]
ExportPart = Literal["trades", "reasoning", "equity"]
EXPORT_PARTS: tuple[ExportPart, ...] = ("trades", "reasoning", "equity")
CandleIndex = Annotated[int, Field(ge=0, le=10_000_000)]


class ResultsQuery(Filters):
    """`from_date` and `date_from` mean the same, as do `to_date` and `date_to`."""

    search: Search | None = None
    type: Literal["all", "backtest", "forward"] = "all"
    result: Literal["all", "profitable", "loss"] = "all"
    profitable: bool | None = None
    agent_id: UUID | None = None
    asset: Asset | None = None
    mode: Mode | None = None
    from_date: Moment | None = None
    date_from: Moment | None = None
    to_date: Moment | None = None
    date_to: Moment | None = None
    page: Page = 1
    limit: Annotated[int, Field(ge=1, le=50)] = 20

    def to_filter(self) -> ResultFilter:
        outcome = {"profitable": True, "loss": False, "all": None}[self.result]
        return ResultFilter(
            search=self.search,
            type=None if self.type == "all" else self.type,
            profitable=outcome if self.profitable is None else self.profitable,
            agent_id=self.agent_id,
            asset=self.asset,
            mode=self.mode,
            from_date=_instant(self.from_date or self.date_from, is_end=False),
            to_date=_instant(self.to_date or self.date_to, is_end=True),
            page=self.page,
            limit=self.limit,
        )


class TradesQuery(Filters):
    direction: Literal["long", "short"] | None = None
    outcome: Literal["win", "loss"] | None = None
    search: Search | None = None
    page: Page = 1
    limit: Annotated[int, Field(ge=1, le=500)] = 100

    def to_filter(self) -> TradeFilter:
        return TradeFilter(**self.model_dump())


class ReasoningQuery(Filters):
    """`candle_start` and `candle_from` mean the same, as do `candle_end` and `candle_to`.

    `decisions_only` leaves out the holds.
    """

    candle_start: CandleIndex | None = None
    candle_from: CandleIndex | None = None
    candle_end: CandleIndex | None = None
    candle_to: CandleIndex | None = None
    decisions_only: bool = False
    decision: Literal["long", "short", "hold", "close"] | None = None
    page: Page = 1
    limit: Annotated[int, Field(ge=1, le=1_000)] = 100

    def to_filter(self) -> DecisionFilter:
        return DecisionFilter(
            candle_from=self.candle_from if self.candle_start is None else self.candle_start,
            candle_to=self.candle_to if self.candle_end is None else self.candle_end,
            acted_only=self.decisions_only,
            decision=self.decision,
            page=self.page,
            limit=self.limit,
        )


class ExportQuery(Filters):
    """`include` may repeat or be separated by commas; without it, everything is included."""

    format: ExportFormat = "json"
    include: Annotated[list[ExportPart], BeforeValidator(split_words)] = Field(
        default=list(EXPORT_PARTS), examples=[["trades", "equity"]]
    )

    @property
    def parts(self) -> list[ExportPart]:
        """What to include, each once and in the order of the file."""
        return [part for part in EXPORT_PARTS if part in self.include or not self.include]


class ResultOut(Shape):
    """A result as lists show it; `max_drawdown_pct` is a magnitude."""

    id: UUID
    type: TestType
    agent_id: UUID | None
    agent_name: str
    asset: str
    mode: str
    timeframe: str
    created_at: datetime
    duration_display: str = Field(examples=["31d 0h"])
    total_trades: int
    total_pnl_pct: float
    win_rate: float
    max_drawdown_pct: float
    sharpe_ratio: float | None
    profit_factor: float | None
    is_profitable: bool
    has_certificate: bool

    @classmethod
    def of(cls, result: ResultListed) -> Self:
        return cls.model_validate(_listed(result))


class ResultsAnswer(Shape):
    results: list[ResultOut]
    pagination: Pagination


class TypeFigures(Shape):
    count: int
    profitable: int


class FiguresByType(Shape):
    backtest: TypeFigures
    forward: TypeFigures


class ResultStats(Shape):
    """Returns are in percent; without any result they are 0."""

    total_tests: int
    profitable: int
    profitable_pct: float
    best_result: float
    worst_result: float
    avg_pnl: float
    by_type: FiguresByType

    @classmethod
    def of(cls, figures: ResultFigures) -> Self:
        total, profitable = figures.total_tests, figures.profitable
        return cls(
            total_tests=total,
            profitable=profitable,
            profitable_pct=profitable / total * 100 if total else 0.0,
            best_result=figures.best_result or 0.0,
            worst_result=figures.worst_result or 0.0,
            avg_pnl=figures.avg_pnl or 0.0,
            by_type=FiguresByType(
                backtest=TypeFigures(
                    count=figures.backtests, profitable=figures.profitable_backtests
                ),
                forward=TypeFigures(
                    count=figures.forward_tests, profitable=figures.profitable_forward_tests
                ),
            ),
        )


class ResultStatsAnswer(Shape):
    stats: ResultStats


class CurvePoint(Shape):
    time: int = Field(description="Epoch milliseconds, strictly ascending.")
    value: float
    drawdown: float | None = None


class BenchmarkPoint(Shape):
    time: int
    value: float


class ResultCosts(Shape):
    gross_pnl: float
    fees: float
    slippage: float
    model_usd: float


class ResultDetail(ResultOut):
    session_id: UUID
    model: str
    start_date: datetime
    end_date: datetime
    starting_capital: float
    ending_capital: float
    total_pnl_amount: float
    winning_trades: int
    losing_trades: int
    total_return_pct: float | None
    cagr_pct: float | None
    sortino_ratio: float | None
    calmar_ratio: float | None
    volatility_pct: float | None
    probabilistic_sharpe_pct: float | None
    expectancy: float | None
    sqn: float | None
    kelly_pct: float | None
    exposure_pct: float | None
    buy_and_hold_return_pct: float | None
    excess_return_pct: float | None
    longest_drawdown_seconds: float | None
    daily_returns: int
    low_sample: bool
    avg_trade_pnl: float | None
    best_trade_pnl: float | None
    worst_trade_pnl: float | None
    avg_holding_time_display: str | None
    costs: ResultCosts
    config: dict[str, Any]
    equity_curve: list[CurvePoint]
    buy_and_hold_curve: list[BenchmarkPoint]
    total_candles: int
    gaps: int
    ambiguous_candles: int
    optimistic_pnl_pct: float | None
    missed_candles: int
    paused_candles: int
    late_decisions: int
    invalid_replies: int
    possibly_paid_twice: int
    blind: bool
    tokens: int
    ai_summary: str | None = Field(
        description="What the agent's model says of the test, in plain text, where that was asked "
        "for at its start. Its cost is the session's, and in no figure of the result."
    )
    data_source: str | None
    data_fingerprint: str | None
    model_source: Literal["openrouter", "simulated"] | None = Field(
        description="Who answered for the model; null where it was not noted."
    )
    certificate_id: UUID | None
    end_reason: str | None
    open_position_at_end: bool

    @classmethod
    def of_record(cls, result: ResultRecord) -> Self:
        metrics, holding = result.metrics, result.avg_holding_seconds
        return cls.model_validate(
            _METRICS
            | {name: metrics.get(name) for name in _METRICS if name in metrics}
            | _listed(result)
            | {"has_certificate": result.certificate_id is not None}
            | {
                "sortino_ratio": metrics.get("sortino"),
                "calmar_ratio": metrics.get("calmar"),
                "avg_holding_time_display": None if holding is None else display_duration(holding),
                "costs": ResultCosts(
                    gross_pnl=result.gross_pnl,
                    fees=result.fees,
                    slippage=result.slippage_cost,
                    model_usd=result.cost_usd,
                ),
            }
        )


class ResultAnswer(Shape):
    result: ResultDetail


class TradeOut(Shape):
    """`pnl_pct` is net, on the margin used; what an open trade has no value for is null."""

    id: UUID
    trade_number: int
    type: Literal["long", "short"]
    entry_price: float
    entry_time: datetime
    entry_candle: int
    exit_price: float | None
    exit_time: datetime | None
    exit_candle: int | None
    exit_type: str | None
    size: float
    leverage: float
    pnl_amount: float | None
    pnl_pct: float | None
    fees: float
    duration_display: str | None
    stop_loss: float | None
    take_profit: float | None
    entry_reasoning: str | None
    exit_reasoning: str | None
    ambiguous: bool
    overrides: list[dict[str, Any]]

    @classmethod
    def of(cls, trade: TradeRecord) -> Self:
        held = trade.exit_time - trade.entry_time if trade.exit_time else None
        return cls.model_validate(
            trade.model_dump()
            | {"duration_display": None if held is None else display_duration(held.total_seconds())}
        )


class TradesSummary(Shape):
    total: int
    wins: int
    losses: int
    avg_win: float | None
    avg_loss: float | None

    @classmethod
    def of(cls, summary: TradeSummary) -> Self:
        return cls.model_validate(summary)


class TradesAnswer(Shape):
    trades: list[TradeOut]
    summary: TradesSummary
    pagination: Pagination


class Thought(Shape):
    """`indicators` and `indicator_values` are the same."""

    id: UUID
    candle_number: int
    timestamp: datetime
    candle_data: dict[str, Any]
    indicators: dict[str, float | None]
    indicator_values: dict[str, float | None]
    thought_type: Literal["analysis", "decision", "execution"]
    reasoning: str
    decision: str
    confidence: float | None
    order_data: dict[str, Any] | None
    overrides: list[dict[str, Any]]
    trade_id: UUID | None
    model: str
    tokens: int
    cost_usd: float
    latency_ms: int | None
    attempts: int
    invalid_reply: bool

    @classmethod
    def of(cls, decision: DecisionRecord) -> Self:
        return cls.model_validate(
            decision.model_dump()
            | {
                "indicators": decision.indicator_values,
                "model": decision.model_used or decision.model_requested,
                "tokens": decision.tokens_prompt + decision.tokens_completion,
            }
        )


class ReasoningAnswer(Shape):
    """`reasoning` and `thoughts` are the same."""

    reasoning: list[Thought]
    thoughts: list[Thought]
    total_entries: int
    pagination: Pagination


# The metrics that carry the same name inside and out.
_METRICS: dict[str, Any] = {
    "total_return_pct": None,
    "cagr_pct": None,
    "volatility_pct": None,
    "probabilistic_sharpe_pct": None,
    "expectancy": None,
    "sqn": None,
    "kelly_pct": None,
    "exposure_pct": None,
    "buy_and_hold_return_pct": None,
    "excess_return_pct": None,
    "longest_drawdown_seconds": None,
    "daily_returns": 0,
}


def _listed(result: ResultListed | ResultRecord) -> dict[str, Any]:
    return result.model_dump() | {
        "duration_display": display_duration(result.duration_seconds),
        "win_rate": result.win_rate or 0.0,
    }


def _instant(moment: str | None, *, is_end: bool) -> datetime | None:
    return None if moment is None else instant_of(moment, is_end=is_end)
