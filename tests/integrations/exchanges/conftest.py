"""The market that ccxt makes of the simulated exchange."""

from collections.abc import AsyncIterator, Iterator

import pytest

from integrations.exchanges.exchange_market import TickerPace, open_market
from integrations.exchanges.market import Market
from tests.integrations.exchanges.simulation import SimulatedExchange, simulated_exchange

PACE = TickerPace(poll=0.01, silence=0.3, again=0.1)


@pytest.fixture(scope="session")
def running_exchange() -> Iterator[SimulatedExchange]:
    with simulated_exchange() as exchange:
        yield exchange


@pytest.fixture
def exchange(running_exchange: SimulatedExchange) -> SimulatedExchange:
    running_exchange.reset()
    return running_exchange


@pytest.fixture(autouse=True)
def no_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    """ccxt waits a quarter of a second for TLS connections to end; here are none."""
    monkeypatch.setattr("ccxt.async_support.Exchange.timeout_on_exit", 0)


@pytest.fixture
async def market(exchange: SimulatedExchange) -> AsyncIterator[Market]:
    market = open_market("simulated", base_url=exchange.url, pace=PACE)
    yield market
    await market.close()
