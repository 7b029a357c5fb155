"""What is run and what is killed, drawn from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random
from typing import Literal

# "request" is the worker, killed while a request to the model is on its way; "temporal's data" is
# Temporal, whose database goes with it.
Victim = Literal[
    "worker",
    "request",
    "redis",
    "api",
    "postgres",
    "temporal",
    "temporal's data",
    "simulators",
    "everything",
]

FIRST_CANDLE = datetime(2022, 3, 1, tzinfo=UTC)
# Nothing is killed before the test is under way nor when it is about to end.
_QUIET_SHARE = 0.04
# About what one candle takes: a kill falls anywhere inside it.
_CANDLE_SECONDS = 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A kill: `delay` seconds after `candle` candles have been stepped.

    Of a request, its beginning counts, and the delay is a twentieth of that.
    """

    victim: Victim
    candle: int
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole run."""

    candles: int = 2_000
    seed: int = 1
    model: str = "simulated/momentum"
    interval: int = 1
    victims: Sequence[Victim] = (
        *("worker",) * 5,
        *("request",) * 2,
        *("redis",) * 2,
        *("api",) * 2,
        "postgres",
        "temporal",
        "simulators",
        "everything",
    )
    bystander_candles: int = 120
    # Undisturbed runs to compare with; the disturbed one is compared with the first.
    references: int = 2
    # After the kills, the stack is also stopped in order and started again.
    orderly_restart: bool = True
    # Limits of time are multiplied by it where others use the machine as well.
    leniency: float = 1.0

    def strikes(self) -> list[Strike]:
        """The kills at random candles, in the order of the candles."""
        random = Random(self.seed)
        quiet = max(3, int(self.candles * _QUIET_SHARE))
        candles = random.sample(range(quiet, self.candles - quiet), len(self.victims))
        return [
            Strike(victim=victim, candle=candle, delay=random.uniform(0, _CANDLE_SECONDS))
            for candle, victim in sorted(zip(candles, self.victims, strict=True))
        ]

    def without_kills(self) -> "Plan":
        return replace(self, victims=())
