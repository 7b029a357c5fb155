"""A test that a demo shows: watched to its end, reported on, or left to itself."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from local.demo_certificate import show_certificate
from local.demo_client import DemoFailed, Frame
from local.demo_report import Addresses, report, where_next
from local.demo_tour import Tour
from local.demo_view import Drawing, Standing
from settings import TemporalSettings
from workflows.runtime import SessionType, workflow_id

TRADES_READ = 500
_WORDS = {"backtest": "backtest", "forward": "forward test"}

AnyStanding = TypeVar("AnyStanding", bound=Standing)
React = Callable[[Frame, AnyStanding], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSession:
    """Names a test."""

    id: str
    type: SessionType

    @property
    def name(self) -> str:
        return _WORDS[self.type]

    @property
    def path(self) -> str:
        return f"/api/arena/{self.type}/{self.id}"


async def watch_to_end(
    tour: Tour,
    session: DemoSession,
    drawing: Drawing[AnyStanding],
    react: React[AnyStanding] | None = None,
) -> AnyStanding:
    """Show the test until its end, however that comes about."""
    standing = drawing.start
    with tour.view.watching(drawing) as show:
        async with aclosing(tour.client.watch(session.type, session.id)) as frames:
            async for frame in frames:
                standing = standing.after(frame)
                show(standing)
                # Paused for want of a model it would wait for ever: the result so far will do.
                if frame["event"] == "session_paused" and standing.pause_reason != "user":
                    await stop(tour, session)
                if react is not None:
                    await react(frame, standing)
    return standing


async def stop(tour: Tour, session: DemoSession) -> None:
    await tour.client.post(f"{session.path}/stop", {"close_position": True})


def result_of(tour: Tour, session: DemoSession, standing: Standing) -> str:
    """The id of an ended test's result. Raises `DemoFailed`, also where nothing was decided."""
    if standing.result_id is None:
        raise DemoFailed(f"The {session.name} failed: {standing.failure}")
    if standing.trouble and standing.decision is None:
        raise DemoFailed(f"The agent could not take a single decision: {standing.trouble}")
    if standing.trouble:
        tour.view.line(f"Ended early: {standing.trouble}")
    return standing.result_id


async def report_on(
    tour: Tour,
    session: DemoSession,
    result_id: str,
    *,
    is_simulated_model: bool,
    seconds: float,
    file: Path | None = None,
) -> None:
    """The result, its certificate, and where to look next."""
    path = f"/api/results/{result_id}"
    result = (await tour.client.get(path))["result"]
    trades = (await tour.client.get(f"{path}/trades", limit=TRADES_READ))["trades"]
    report(
        tour.view,
        result,
        trades,
        file=file,
        is_simulated_model=is_simulated_model,
        seconds=seconds,
    )
    await show_certificate(tour, result)
    where_next(tour.view, tour.directory, _addresses(tour, session, "Result", path))


def say_goodbye(tour: Tour, session: DemoSession, words: str) -> None:
    """What a test that is left to itself will do, and where it is."""
    tour.view.line()
    tour.view.line(words)
    addresses = _addresses(tour, session, session.type.capitalize(), session.path)
    where_next(tour.view, tour.directory, addresses)


def _addresses(tour: Tour, session: DemoSession, what: str, path: str) -> Addresses:
    namespace = TemporalSettings.model_fields["temporal_namespace"].default
    return Addresses(
        what=what,
        path=path,
        api=tour.record.addresses["API"],
        documentation=tour.record.addresses["API documentation"],
        web_ui=tour.record.addresses.get("Temporal Web UI"),
        namespace=tour.record.settings.get("TEMPORAL_NAMESPACE", namespace),
        workflow_id=workflow_id(UUID(session.id), session.type),
    )
