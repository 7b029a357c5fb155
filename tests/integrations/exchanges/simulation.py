"""A simulated exchange on a loopback port, with its controls in a test's hands."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from local.simulators.exchange_server import create_app

MINUTE = 60_000
HOUR = 60 * MINUTE
# An hour's candle is under way, and so is a minute's: 12:34:30 on a Wednesday.
NOW = 1_750_250_070_000
TICK_SECONDS = 0.02


@dataclass
class SimulatedExchange:
    """Its address, and what it is told over HTTP."""

    url: str
    http: httpx.Client

    def set_clock(self, **changes: float) -> None:
        self.http.post("/debug/clock", json=changes).raise_for_status()

    def fail(self, kind: str, **fields: Any) -> None:
        self.http.post("/debug/faults", json=[{"kind": kind} | fields]).raise_for_status()

    def recover(self) -> None:
        self.http.delete("/debug/faults").raise_for_status()

    def reset(self) -> None:
        """As it began: its clock stands at `NOW`, nothing fails, and nobody has asked."""
        self.recover()
        self.set_clock(now_ms=NOW, speed=0)
        self.http.delete("/debug/requests").raise_for_status()

    def count(self, path: str) -> int:
        """How many requests there were."""
        counted: int = self.http.get("/debug/requests").json()["by_path"].get(path, 0)
        return counted


@contextlib.contextmanager
def simulated_exchange() -> Iterator[SimulatedExchange]:
    app = create_app(tick_seconds=TICK_SECONDS)
    listener = socket.create_server(("127.0.0.1", 0))
    # Without waiting for what hangs: some tests leave a request behind that is never answered.
    config = uvicorn.Config(
        app, log_config=None, ws="websockets-sansio", lifespan="off", timeout_graceful_shutdown=0
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(base_url=url) as http:
            yield SimulatedExchange(url, http)
    finally:
        server.should_exit = True
        thread.join(timeout=5)
        listener.close()
