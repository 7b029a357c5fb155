"""Starts again every session that should be running and has no workflow; stops what must not run.

A start may be interrupted between the commit and Temporal, and Temporal's own data may be lost;
the session's row says what should be running, and its last stored state where to go on. Nor does a
user's deactivation depend on Temporal: whatever test of that user's is still under way is stopped
here.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Literal, Protocol, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from activities.prices import PriceFeeds
from db.engine import Database
from db.repositories.exports import AllExportsRepository, StaleExport
from db.repositories.sessions import ReconcileRepository, StaleSession
from db.repositories.watched_positions import WatchedPositionRepository

# A session that moves needs no help, and one that was just inserted is being started.
UNCHANGED_FOR = timedelta(seconds=30)
# From so many quiet sessions on, one listing is asked for instead of each of them.
LISTED_FROM = 20
# So many of those listed are asked for all the same, so that a false listing is found out.
LISTED_AND_ASKED = 3
# So many of one kind in one pass that Temporal did not answer for mean that it is away.
GIVE_UP_AFTER = 3
# Any constant of the project's own: whoever has this turn reconciles, the others skip.
_TURN = 4_201_337

_logger = structlog.get_logger(__name__)

Found = TypeVar("Found", StaleSession, StaleExport)


class SessionStarter(Protocol):
    """What reconciliation needs of Temporal. All raise `ConnectionError` when it is away."""

    async def is_running(self, session_id: UUID, type: Literal["backtest", "forward"]) -> bool: ...

    async def unlisted(self, sessions: Sequence[StaleSession]) -> Sequence[StaleSession]: ...

    async def start_again(self, session: StaleSession) -> None: ...

    async def stop_for_good(self, session: StaleSession) -> None: ...


class HeldAssets:
    """Sees to it that a price feed watches each asset in which a forward test has a position."""

    def __init__(self, feeds: PriceFeeds, source: str) -> None:
        self._feeds = feeds
        self._source = source

    async def renew(self, database: Database) -> None:
        async with database.as_system() as session:
            held = await WatchedPositionRepository(session).assets_held(self._source)
        for asset in held:
            await self._feeds.want(self._source, asset)


class ExportStarter(Protocol):
    """What lost exports need of Temporal. Both raise `ConnectionError` when it is away."""

    async def is_export_running(self, export_id: UUID) -> bool: ...

    async def start_export(self, export: StaleExport) -> None: ...


class LostExports:
    """Starts again each export that is under way by its row and has no workflow."""

    def __init__(self, starter: ExportStarter) -> None:
        self._starter = starter

    async def restore(self, export: StaleExport) -> bool:
        if await self._starter.is_export_running(export.id):
            return False
        await self._starter.start_export(export)
        _logger.info("export_started_again", export_id=str(export.id))
        return True


class Reconciler:
    """Looks for sessions without a workflow, one process at a time.

    `watch` renews the feeds, `exports` are looked for as well.
    """

    def __init__(
        self,
        database: Database,
        starter: SessionStarter,
        watch: HeldAssets | None = None,
        exports: LostExports | None = None,
    ) -> None:
        self._database = database
        self._starter = starter
        self._watch = watch
        self._exports = exports

    async def run_every(self, seconds: float) -> None:
        """Reconcile at once and then regularly, whatever is unreachable meanwhile."""
        while True:
            try:
                started = await self.run_once()
            except (ConnectionError, SQLAlchemyError, OSError) as e:
                _logger.warning("not_reconciled", error=type(e).__name__)
            except Exception as e:  # whatever it is, the next pass may come further
                _logger.exception("not_reconciled", error=type(e).__name__)
            else:
                if started:
                    _logger.info("sessions_started_again", count=started)
            await asyncio.sleep(seconds)

    async def run_once(self, *, unchanged_for: timedelta = UNCHANGED_FOR) -> int:
        """Start what has no workflow; return how many tests. Nothing while another process does.

        No transaction waits for what Temporal answers.
        """
        async with self._database.turn(_TURN) as is_ours:
            return await self._reconcile(unchanged_for) if is_ours else 0

    async def _reconcile(self, unchanged_for: timedelta) -> int:
        if self._watch is not None:
            await self._watch.renew(self._database)
        async with self._database.as_system() as session:
            stale = await ReconcileRepository(session).stale(unchanged_for)
        restored = await self._each(await self._doubtful(stale), self._restore)
        # After the others, so that tests which cannot be stopped keep nobody else's from going on.
        async with self._database.as_system() as session:
            forbidden = await ReconcileRepository(session).of_the_deactivated()
        await self._each(forbidden, self._stop)
        if self._exports is not None:
            async with self._database.as_system() as session:
                lost = await AllExportsRepository(session).stale(unchanged_for)
            await self._each(lost, self._exports.restore)
        return restored

    async def _doubtful(self, stale: Sequence[StaleSession]) -> Sequence[StaleSession]:
        # Forward tests are quiet between their candles, and may be thousands.
        if len(stale) < LISTED_FROM:
            return stale
        try:
            unlisted = await self._starter.unlisted(stale)
            return unlisted if await self._is_true_of_some(stale, unlisted) else stale
        except ConnectionError as e:
            _logger.warning("not_listed", error=type(e).__name__)
            return stale

    async def _is_true_of_some(
        self, stale: Sequence[StaleSession], unlisted: Sequence[StaleSession]
    ) -> bool:
        # Temporal keeps what it lists beside what it runs: where the latter was lost, a listing
        # would name for ever what is gone.
        left_out = {each.id for each in unlisted}
        listed = [each for each in stale if each.id not in left_out]
        some = random.sample(listed, min(LISTED_AND_ASKED, len(listed)))
        return all([await self._starter.is_running(each.id, each.type) for each in some])

    async def _each(self, found: Sequence[Found], mend: Callable[[Found], Awaitable[bool]]) -> int:
        """One that cannot be mended does not keep the others waiting."""
        mended = failures = 0
        for each in found:
            try:
                mended += await mend(each)
            except ConnectionError:
                failures += 1
                if failures == GIVE_UP_AFTER:
                    raise
                _logger.warning("not_mended", kind=type(each).__name__, id=str(each.id))
        return mended

    async def _stop(self, session: StaleSession) -> bool:
        await self._starter.stop_for_good(session)
        _logger.info("test_of_deactivated_user_stopped", session_id=str(session.id))
        return True

    async def _restore(self, session: StaleSession) -> bool:
        if await self._starter.is_running(session.id, session.type):
            return False
        await self._starter.start_again(session)
        return True
