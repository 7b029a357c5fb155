"""Composes the canonical document of a test from what it recorded."""

from dataclasses import dataclass
from datetime import UTC, datetime

from certificates.bundle import DECISIONS, Traced
from certificates.canonical import AgentFacts, DataFacts, Document, ModelFacts, RunFacts
from certificates.comparison import Counted
from certificates.figures import Course, figures_of
from trading.candles import Timeframe
from trading.parity import Recording


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What no fold tells of a test."""

    code: str
    issued_at: datetime
    engine_version: str
    agent: AgentFacts
    test: RunFacts
    data_source: str
    missed_candles: int
    paused_candles: int
    model_source: str
    trials: int
    includes_reasoning: bool


def compose(circumstances: Circumstances, recording: Recording, traced: Traced) -> Document:
    """Fold the recording, and state what came of it. Pure, and as slow as the test is long."""
    told = circumstances
    course = Course.of(recording)
    figures = figures_of(course, course.fold())
    counted = counted_of(recording, traced)
    return Document(
        code=told.code,
        issued_at=instant(told.issued_at),
        engine_version=told.engine_version,
        agent=told.agent,
        test=told.test,
        rules=recording.rules,
        data=DataFacts(
            source=told.data_source,
            fingerprint=counted.fingerprint,
            window_candles=counted.window_candles,
            stepped_candles=counted.stepped_candles,
            gaps=counted.gaps,
            missed_candles=told.missed_candles,
            paused_candles=told.paused_candles,
            ambiguous_candles=figures.ambiguous_candles,
        ),
        model=ModelFacts(
            source=told.model_source,
            decisions=counted.decisions,
            late_decisions=counted.late_decisions,
            invalid_replies=counted.invalid_replies,
        ),
        trials=told.trials,
        includes_reasoning=told.includes_reasoning,
        trace=traced.facts,
        metrics=figures.metrics,
        result=figures.result,
    )


def counted_of(recording: Recording, traced: Traced) -> Counted:
    """What is counted of a recording and its files."""
    length_ms = recording.rules.timeframe_ms
    timeframe = next(each for each in Timeframe if each.milliseconds == length_ms)
    return Counted.of(
        recording.window,
        recording.candles,
        timeframe,
        decisions=traced.heads[DECISIONS].lines,
        late_decisions=traced.late_decisions,
        invalid_replies=traced.invalid_replies,
    )


def instant(at: datetime) -> str:
    """As the document writes it: in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
