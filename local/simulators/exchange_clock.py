"""The simulated exchange's clock: ours, or one of its own that runs faster, stops and is set."""

import time
from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict


class ClockOrigin(BaseModel):
    """When it was which time at the exchange, and how fast its clock has run since."""

    model_config = ConfigDict(frozen=True)

    exchange_ms: int
    wall_ms: float
    speed: float

    @classmethod
    def going_on_from(
        cls, former: "ClockOrigin | None", *, speed: float, wall_ms: float
    ) -> "ClockOrigin":
        """The origin of a clock that never goes back: from a former speed's time, or from ours."""
        if former is None:
            return cls(exchange_ms=int(wall_ms), wall_ms=int(wall_ms), speed=speed)
        if former.speed == speed:
            return former
        return cls(exchange_ms=former.time_ms(wall_ms), wall_ms=wall_ms, speed=speed)

    def time_ms(self, wall_ms: float) -> int:
        """Epoch milliseconds at the exchange when it is `wall_ms` here."""
        return int(self.exchange_ms + (wall_ms - self.wall_ms) * self.speed)

    @property
    def arguments(self) -> Sequence[str]:
        """How the simulators' process is told."""
        return (
            f"--exchange-origin={self.exchange_ms}",
            f"--exchange-wall-origin={self.wall_ms!r}",
            f"--exchange-speed={self.speed!r}",
        )


class ExchangeClock:
    """Exchange time is `origin + (wall - wall origin) * speed`, until it is set.

    The same origins and speed give the same time after a restart. `speed` 3600 makes an hour pass
    in a second. Without a wall origin of its own, the exchange had our time at its origin.
    """

    def __init__(
        self,
        *,
        origin_ms: int = 0,
        wall_origin_ms: float | None = None,
        speed: float = 1.0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._wall = wall
        self._origin = ClockOrigin(
            exchange_ms=origin_ms,
            wall_ms=origin_ms if wall_origin_ms is None else wall_origin_ms,
            speed=speed,
        )

    @property
    def speed(self) -> float:
        return self._origin.speed

    @property
    def now_ms(self) -> int:
        """Epoch milliseconds at the exchange."""
        return self._origin.time_ms(self._wall() * 1000)

    def set(
        self, *, now_ms: int | None = None, advance_ms: int = 0, speed: float | None = None
    ) -> None:
        """Go to a time, on by some milliseconds, or on at another speed; at speed 0 it stands."""
        self._origin = ClockOrigin(
            exchange_ms=int((self.now_ms if now_ms is None else now_ms) + advance_ms),
            wall_ms=self._wall() * 1000,
            speed=self.speed if speed is None else speed,
        )
