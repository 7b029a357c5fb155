"""Which forward tests run, and what is killed under them, drawn from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.chaos.plans import Strike, Victim
from trading.candles import Timeframe

HOUR_MS = Timeframe.HOUR_1.milliseconds
# A worker that dies in a request is one that dies; so that some surely do.
_IN_TURN: Sequence[Victim] = ("worker", "redis", "postgres", "api", "temporal")
_IN_A_REQUEST: Sequence[Victim] = ("request", "redis", "postgres", "api", "temporal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An agent's test; the first one is watched, and killed in its requests."""

    model: str
    asset: str

    @property
    def name(self) -> str:
        return f"{self.model} on {self.asset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardPlan:
    """A whole run."""

    seed: int = 1
    # Each with a model of its own: the simulated OpenRouter counts requests by model. The first
    # one's requests take half a candle.
    subjects: Sequence[Subject] = (
        Subject(model="simulated/momentum:slow", asset="SOL/USDT"),
        Subject(model="simulated/flip", asset="ETH/USDT"),
        Subject(model="simulated/scalp", asset="LINK/USDT"),
        Subject(model="simulated/always-long", asset="LINK/USDT"),
    )
    victims: Sequence[Victim] = (*_IN_TURN, *_IN_A_REQUEST) * 2
    # After the others: until the tests have been found again, nothing else could be learnt.
    loses_temporal: bool = True
    # How long an hour takes at the exchange.
    candle_seconds: float = 4.0
    # At least one exit between two closes is no accident in a run that is long enough.
    exits_between_closes: int = 3
    # Limits of time are multiplied by it where others use the machine as well.
    leniency: float = 1.0

    @property
    def speed(self) -> float:
        return HOUR_MS / 1000 / self.candle_seconds

    def strikes(self) -> list[Strike]:
        """The kills in turn, each up to three candles after the one before."""
        random, longest = Random(self.seed), 3 * self.candle_seconds
        return [
            Strike(victim=victim, candle=0, delay=random.uniform(0.1, longest))
            for victim in self.victims
        ]
