"""Finds an ended test in the database, folds its recording again, and compares."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import Database
from db.models.results import ResultRecord
from db.models.sessions import SessionRecord
from db.recordings import load_recording
from db.repositories.results import ResultRepository
from db.repositories.sessions import SessionRepository
from events.payloads import result_id
from local.parity_view import Compared, NothingToCompare
from trading.parity import Recording, check_parity


async def compare_recorded(settings: dict[str, str], text: str) -> Compared:
    """Compare the test whose session or result has this id, whoever it belongs to.

    Raises `NothingToCompare` in one sentence.
    """
    database = Database.connect(
        settings["DATABASE_URL"], system_url=settings.get("DATABASE_SYSTEM_URL"), pool_size=1
    )
    try:
        async with database.as_system() as session:
            result, recording = await _recorded(session, text)
    finally:
        await database.dispose()
    return Compared(
        test=f"{result.type} test" if result.type == "forward" else result.type,
        agent=result.agent_name,
        asset=result.asset,
        timeframe=result.timeframe,
        parity=check_parity(recording),
    )


async def _recorded(session: AsyncSession, text: str) -> tuple[ResultRecord, Recording]:
    given = _parsed(text)
    record, result = await _found(session, given)
    if record is None:
        raise NothingToCompare(f"There is no test whose session or result has the id {given}.")
    if result is None:
        raise NothingToCompare(
            f"The test {given} is {record.status}: only one that has ended with a result can be "
            "compared."
        )
    if record.data_set_id is None:
        raise NothingToCompare(f"The candles of the test {given} have been deleted.")
    return result, await load_recording(session, record)


def _parsed(text: str) -> UUID:
    try:
        return UUID(text.strip())
    except ValueError:
        raise NothingToCompare(f"{text[:60]!r} is not the id of a session or a result.") from None


async def _found(
    session: AsyncSession, given: UUID
) -> tuple[SessionRecord | None, ResultRecord | None]:
    results = ResultRepository(session)
    result = await results.get(given) or await results.get(result_id(given))
    session_id = given if result is None else result.session_id
    return await SessionRepository(session).get(session_id), result
