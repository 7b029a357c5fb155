"""What the simulated exchange is told to do wrong: a JSON list for `POST /debug/faults`.

| kind | fields | effect |
|---|---|---|
| `answer` | `status`, `path`, `times`, `retry_after`, `body` | that HTTP answer instead |
| `hang` | `path`, `times` | no answer at all |
| `late` | `asset`, `timeframe`, `open_time`, `by_ms` | unpublished for so long after its close |
| `revised` | `asset`, `timeframe`, `open_time`, `factor` | once served closed, closes elsewhere |
| `halt` | `asset`, `start_ms`, `end_ms` | no trading: a gap at every length of candle |
| `gone` | `asset` | not listed any more |
| `stream` | `how` (`refuse`, `drop`, `silent`), `times` | so the ticker stream goes |

`path` is the end of the paths that are meant, such as `/klines`; empty, all but `/clock` and
`/debug`. `times` counts requests; a `late` candle is measured on the exchange's clock.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from local.simulators.exchange_history import Span
from trading.candles import Candle, Timeframe


class _Fault(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AnswerFault(_Fault):
    kind: Literal["answer"]
    status: int = Field(ge=200, le=599)
    path: str = ""
    times: int = Field(default=1, ge=1)
    retry_after: int | None = None
    body: str | None = None


class HangFault(_Fault):
    kind: Literal["hang"]
    path: str = ""
    times: int = Field(default=1, ge=1)


class LateFault(_Fault):
    kind: Literal["late"]
    asset: str
    timeframe: Timeframe
    open_time: int
    by_ms: int = Field(gt=0)


class RevisedFault(_Fault):
    kind: Literal["revised"]
    asset: str
    timeframe: Timeframe
    open_time: int
    factor: float = Field(default=1.01, gt=0)


class HaltFault(_Fault):
    kind: Literal["halt"]
    asset: str
    start_ms: int
    end_ms: int


class GoneFault(_Fault):
    kind: Literal["gone"]
    asset: str


class StreamFault(_Fault):
    kind: Literal["stream"]
    how: Literal["refuse", "drop", "silent"]
    times: int = Field(default=1, ge=1)


Fault = AnswerFault | HangFault | LateFault | RevisedFault | HaltFault | GoneFault | StreamFault

_FAULTS = TypeAdapter(list[Annotated[Fault, Field(discriminator="kind")]])


class ExchangeFaults:
    """The faults in force, and which of them have had their effect."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._served: set[tuple[str, Timeframe, int]] = set()

    def add(self, body: bytes) -> int:
        """Add a JSON list of faults and count it. Raises `pydantic.ValidationError`."""
        faults = _FAULTS.validate_json(body)
        self._faults += faults
        return len(faults)

    def clear(self) -> None:
        self._faults.clear()
        self._served.clear()

    def for_request(self, path: str) -> AnswerFault | HangFault | None:
        """What befalls a request, and one time less from now on."""
        for fault in self._faults:
            if isinstance(fault, AnswerFault | HangFault) and path.endswith(fault.path):
                self._spend(fault)
                return fault
        return None

    def for_stream(self) -> StreamFault | None:
        """What befalls a stream that is being opened, and one time less from now on."""
        fault = next((fault for fault in self._faults if isinstance(fault, StreamFault)), None)
        if fault is not None:
            self._spend(fault)
        return fault

    def is_gone(self, asset: str) -> bool:
        return any(isinstance(fault, GoneFault) and fault.asset == asset for fault in self._faults)

    def halts(self, asset: str) -> Sequence[Span]:
        return [
            Span(start_ms=fault.start_ms, end_ms=fault.end_ms)
            for fault in self._faults
            if isinstance(fault, HaltFault) and fault.asset == asset
        ]

    def published(
        self, asset: str, timeframe: Timeframe, candles: Sequence[Candle], *, now_ms: int
    ) -> list[Candle]:
        """The candles as they are served at a time: without late ones, some with other values."""
        return [
            self._revised(asset, timeframe, candle, now_ms)
            for candle in candles
            if not self._is_late(asset, timeframe, candle, now_ms)
        ]

    def _is_late(self, asset: str, timeframe: Timeframe, candle: Candle, now_ms: int) -> bool:
        closed = candle.open_time + timeframe.milliseconds
        return any(
            isinstance(fault, LateFault)
            and (fault.asset, fault.timeframe, fault.open_time)
            == (asset, timeframe, candle.open_time)
            and now_ms < closed + fault.by_ms
            for fault in self._faults
        )

    def _revised(self, asset: str, timeframe: Timeframe, candle: Candle, now_ms: int) -> Candle:
        name = (asset, timeframe, candle.open_time)
        for fault in self._faults:
            if (
                isinstance(fault, RevisedFault)
                and (fault.asset, fault.timeframe, fault.open_time) == name
                and now_ms >= candle.open_time + timeframe.milliseconds
            ):
                if name in self._served:
                    return _closing_at(candle, candle.close * fault.factor)
                self._served.add(name)
        return candle

    def _spend(self, fault: AnswerFault | HangFault | StreamFault) -> None:
        place = next(place for place, other in enumerate(self._faults) if other is fault)
        if fault.times == 1:
            del self._faults[place]
        else:
            self._faults[place] = fault.model_copy(update={"times": fault.times - 1})


def _closing_at(candle: Candle, close: float) -> Candle:
    close = round(close, 8)
    return replace(candle, close=close, high=max(candle.high, close), low=min(candle.low, close))
