"""Invented requests, by the OpenAPI document: no 500, no status or body that it does not name.

A few for each operation in the suite; `make fuzz` tries every phase with a hundred and more.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from temporalio.client import Client as TemporalClient

from events.payloads import result_id
from settings import ApiSettings
from tests.api.sockets import serving
from tests.api.world import Person, World, upload
from tests.laboratory import Laboratory, Plan

CONFIG = Path(__file__).with_name("schemathesis.toml")
# In the suite few examples, and always the same; a longer run invents anew.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
BRIEF = ["--phases", "fuzzing", "--max-examples", "3", "--seed", "1"]
EMAIL = "fuzz@example.com"
LIFETIME = timedelta(hours=12)  # a thorough run takes hours
THOROUGH = ["--max-examples", str(EXAMPLES)]


@pytest.fixture
async def things(
    staffed: World, settings: ApiSettings, temporal_client: TemporalClient
) -> AsyncIterator[dict[str, str]]:
    """What somebody has of each kind: the ids that paths are filled with."""
    async with staffed.person(email=EMAIL) as person:
        async with httpx.AsyncClient() as http:
            session_id = await _finished(staffed, person, settings, temporal_client, http)
        agent = await person.add_agent()
        inbox = (await person.get("/api/notifications")).json()["notifications"]
        exported = await person.post("/api/export", {"include": {"agent_configs": True}})
        yield {
            "FUZZ_TOKEN": staffed.token(person.subject, LIFETIME, email=EMAIL),
            "FUZZ_AGENT": agent["id"],
            "FUZZ_KEY": await person.add_key(),
            "FUZZ_SESSION": str(session_id),
            "FUZZ_RESULT": str(result_id(session_id)),
            "FUZZ_NOTIFICATION": inbox[0]["id"],
            "FUZZ_EXPORT": exported.json()["export_id"],
        }


async def _finished(
    world: World,
    person: Person,
    settings: ApiSettings,
    temporal_client: TemporalClient,
    http: httpx.AsyncClient,
) -> UUID:
    """A backtest that has ended."""
    await upload(person)
    user = (await person.get("/api/users/me")).json()["user"]
    laboratory = Laboratory(
        database=world.services.database,
        redis=world.services.redis,
        client=temporal_client,
        task_queue=f"nobody-{uuid4().hex}",
        openrouter_url=settings.openrouter_base_url,
        http=http,
        user_id=UUID(user["id"]),
    )
    return await laboratory.plain(Plan(model="simulated/flip", candles=12))


@pytest.mark.timeout(0 if EXAMPLES else 90)
async def test_no_invented_request_is_answered_as_the_document_does_not_say(
    staffed: World, things: dict[str, str], tmp_path: Path
) -> None:
    async with serving(staffed) as address:
        url = f"http://127.0.0.1:{address.port}"
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")),
            *("--no-color", "--config-file", str(CONFIG), "run", f"{url}/api/openapi.json"),
            *(THOROUGH if EXAMPLES else BRIEF),
            env=os.environ | things,
            cwd=tmp_path,  # it leaves notes of failures where it runs
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            report, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    text = report.decode()
    if EXAMPLES:
        print(text)
    assert process.returncode == 0, text
