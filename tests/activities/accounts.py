"""An account with one of everything, and exports of it."""

import csv
import io
import json
import zipfile
from typing import Any
from uuid import UUID

from activities.exports import ExportInput
from db.identifiers import new_id
from db.models import (
    ActivityLog,
    Decision,
    ExportRecord,
    NewExport,
    NewNotification,
    SessionRecord,
    Trade,
)
from db.models.exports import ACCOUNT_PARTS, AccountPart, ExportFormat
from db.repositories.agents import AgentChanges, AgentRepository
from db.repositories.api_keys import ApiKeyRepository
from db.repositories.exports import ExportRepository
from db.repositories.inbox import InboxRepository
from integrations.storage.objects import ObjectStore
from tests.db.accounts import Account, a_decision, a_trade, add_test, store

SEALED_KEY = "gAAAA-what-no-export-has"
EVIL = '=HYPERLINK("https://evil.example")\n+1'


async def furnish(account: Account) -> SessionRecord:
    """Two agents, one with two versions; a test with trades and thoughts; an inbox."""
    agent = await account.add_agent("Alpha", api_key_id=await _key(account))
    await account.add_agent("Beta")
    async with account.database.for_user(account.id) as session:
        changes = AgentChanges(content={"model": "simulated/flip"})
        await AgentRepository(session).update(agent.id, changes)
        await InboxRepository(session).notify(
            NewNotification(
                user_id=account.id, type="info", category="paused", title="Paused", message=EVIL
            )
        )
    tested = await add_test(account, agent)
    await store(
        account,
        Trade,
        a_trade(tested.id, 1, 10.0, entry_reasoning=EVIL),
        a_trade(tested.id, 2, -4.5),
    )
    await store(account, Decision, *(a_decision(tested.id, i) for i in range(3)))
    done = {"user_id": account.id, "activity_type": "agent_created", "description": "Made."}
    await store(account, ActivityLog, {"id": new_id()} | done)
    return tested


async def _key(account: Account) -> UUID:
    async with account.database.for_user(account.id) as session:
        added = await ApiKeyRepository(session).add(
            user_id=account.id,
            label="A key",
            encrypted_key=SEALED_KEY,
            key_prefix="sk-or-v1-••••••••",
        )
    return added.id


async def add_export(
    account: Account,
    *,
    format: ExportFormat = "zip",
    parts: tuple[AccountPart, ...] = tuple(ACCOUNT_PARTS),
    **changes: Any,
) -> ExportRecord:
    export_id = new_id()
    new = NewExport(
        id=export_id,
        user_id=account.id,
        workflow_id=f"export-{export_id}",
        include={part: part in parts for part in ACCOUNT_PARTS},
        format=format,
    )
    async with account.database.for_user(account.id) as session:
        added = await ExportRepository(session).add(new.model_copy(update=changes))
    assert added is not None
    return added


def input_of(export: ExportRecord) -> ExportInput:
    return ExportInput(export_id=str(export.id), user_id=str(export.user_id))


async def row_of(account: Account, export_id: UUID) -> ExportRecord:
    async with account.database.for_user(account.id) as session:
        found = await ExportRepository(session).get(export_id)
    assert found is not None
    return found


async def keys_of(storage: ObjectStore, account: Account) -> list[str]:
    return [each.key async for each in storage.list(f"exports/{account.id}/")]


async def content_of(storage: ObjectStore, account: Account, export: ExportRecord) -> bytes:
    key = (await row_of(account, export.id)).object_key
    assert key is not None
    found = await storage.stream(key)
    data = b"".join([piece async for piece in found.content])
    assert len(data) == found.size_bytes
    return data


def unzipped(data: bytes) -> dict[str, Any]:
    """The files of an archive: rows of CSV, values of JSON."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: _read(name, archive.read(name)) for name in archive.namelist()}


def _read(name: str, data: bytes) -> Any:
    if name.endswith(".json"):
        return json.loads(data)
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))
