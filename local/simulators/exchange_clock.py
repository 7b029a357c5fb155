"""The simulated exchange's clock: ours, or one of its own that runs faster, stops and is set."""

import time
from collections.abc import Callable


class ExchangeClock:
    """Exchange time is `origin + (wall - origin) * speed`, until it is set.

    The same origin and speed give the same time after a restart. `speed` 3600 makes an hour pass
    in a second.
    """

    def __init__(
        self, *, origin_ms: int = 0, speed: float = 1.0, wall: Callable[[], float] = time.time
    ) -> None:
        self._wall = wall
        self._from_wall_ms = self._from_exchange_ms = float(origin_ms)
        self.speed = speed

    @property
    def now_ms(self) -> int:
        """Epoch milliseconds at the exchange."""
        passed_ms = self._wall() * 1000 - self._from_wall_ms
        return int(self._from_exchange_ms + passed_ms * self.speed)

    def set(
        self, *, now_ms: int | None = None, advance_ms: int = 0, speed: float | None = None
    ) -> None:
        """Go to a time, on by some milliseconds, or on at another speed; at speed 0 it stands."""
        exchange_ms = (self.now_ms if now_ms is None else now_ms) + advance_ms
        self._from_exchange_ms, self._from_wall_ms = float(exchange_ms), self._wall() * 1000
        if speed is not None:
            self.speed = speed
