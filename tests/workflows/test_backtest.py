"""A backtest as its user sees it: from its start to its result."""

from tests.laboratory import Laboratory, Plan


async def test_a_backtest_runs_to_its_result(laboratory: Laboratory):
    async with laboratory.worker():
        session_id = await laboratory.run(Plan(candles=30))

    row = await laboratory.session_row(session_id)
    events = await laboratory.streamed(session_id)
    assert row["status"] == "completed"
    assert row["cursor"] == 30
    assert [event.seq for event in events] == list(range(1, row["last_seq"] + 1))
    assert len({event.timestamp for event in events}) == len(events)
    assert events[-1].event == "session_completed"
