"""Agents and their versions."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal
from uuid import UUID

import orjson
from psycopg.errors import UniqueViolation
from sqlalchemy import ColumnElement, Select, and_, delete, exists, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from db.errors import AgentBusy, ApiKeyUnknown, NameTaken
from db.models import (
    Agent,
    AgentRecord,
    AgentVersion,
    AgentVersionRecord,
    ApiKey,
    TradingSession,
)
from db.models.sessions import UNFINISHED

AgentSort = Literal["newest", "oldest", "performance", "tests", "alpha"]

_ORDERS: Mapping[AgentSort, Sequence[Any]] = {
    "newest": (col(Agent.created_at).desc(), col(Agent.id).desc()),
    "oldest": (col(Agent.created_at), col(Agent.id)),
    "performance": (col(Agent.best_pnl).desc().nulls_last(), col(Agent.id).desc()),
    "tests": (col(Agent.tests_run).desc(), col(Agent.id).desc()),
    "alpha": (func.lower(col(Agent.name)), col(Agent.id)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentContent:
    """What decides how an agent trades; a change of any of it makes a new version."""

    mode: str
    model: str
    indicators: tuple[str, ...]
    strategy_prompt: str
    custom_indicators: tuple[dict[str, str], ...] = ()

    def hash(self) -> str:
        """SHA-256 over the content in canonical JSON."""
        return hashlib.sha256(orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFilter:
    """Which agents to list, and in which order."""

    search: str | None = None
    mode: str | None = None
    model: str | None = None
    archived: bool | None = False
    sort: AgentSort = "newest"
    page: int = 1
    limit: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentChanges:
    """What to change of an agent: standing columns by name, and parts of its content by name."""

    columns: Mapping[str, Any] = field(default_factory=dict)
    content: Mapping[str, Any] = field(default_factory=dict)


class AgentRepository:
    """Agents of the user whose transaction it is."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, agent_id: UUID) -> AgentRecord | None:
        """Return an agent, archived or not, with its current content."""
        rows = await self._read(_joined().where(col(Agent.id) == agent_id))
        return rows[0] if rows else None

    async def page(self, wanted: AgentFilter) -> tuple[list[AgentRecord], int]:
        """Return a page of agents and how many match in all."""
        matching = _joined().where(*_conditions(wanted))
        counted = select(func.count()).select_from(
            matching.with_only_columns(col(Agent.id)).subquery()
        )
        total = (await self._session.scalars(counted)).one()
        page = matching.order_by(*_ORDERS[wanted.sort]).limit(wanted.limit)
        return await self._read(page.offset((wanted.page - 1) * wanted.limit)), total

    async def add(
        self, *, user_id: UUID, name: str, api_key_id: UUID | None, content: AgentContent
    ) -> AgentRecord:
        """Store an agent with version 1. Raises `NameTaken`, `ApiKeyUnknown`."""
        await self._check_key(api_key_id)
        agent = Agent(user_id=user_id, api_key_id=api_key_id, name=name, mode=content.mode)
        try:
            async with self._session.begin_nested():
                self._session.add(agent)
        except IntegrityError as error:
            raise _name_taken(error, name) from error
        self._add_version(agent.id, 1, content)
        await self._session.flush()
        return await self._one(agent.id)

    async def update(self, agent_id: UUID, changes: AgentChanges) -> AgentRecord | None:
        """Change an agent; changed content makes the next version, which later tests use.

        Raises `NameTaken`, `ApiKeyUnknown`.
        """
        before = await self.lock(agent_id)
        if before is None:
            return None
        await self._check_key(changes.columns.get("api_key_id"))
        content = replace(_content(before), **changes.content)
        columns = dict(changes.columns)
        if content.hash() != before.content_hash:
            version = before.current_version + 1
            self._add_version(agent_id, version, content)
            columns |= {"current_version": version, "mode": content.mode}
        await self._change(agent_id, columns)
        return await self._one(agent_id)

    async def archive(self, agent_id: UUID) -> AgentRecord | None:
        """Put an agent away; its name is free again. Raises `AgentBusy`."""
        if await self.lock(agent_id) is None:
            return None
        await self._check_idle(agent_id)
        await self._change(agent_id, {"is_archived": True})
        return await self._one(agent_id)

    async def restore(self, agent_id: UUID) -> AgentRecord | None:
        """Bring an agent back. Raises `NameTaken` when its name was given away meanwhile."""
        if await self.lock(agent_id) is None:
            return None
        await self._change(agent_id, {"is_archived": False})
        return await self._one(agent_id)

    async def delete(self, agent_id: UUID) -> AgentRecord | None:
        """Delete an agent; its results stay, under its name. Raises `AgentBusy`."""
        found = await self.lock(agent_id)
        if found is None:
            return None
        await self._check_idle(agent_id)
        await self._session.execute(delete(Agent).where(col(Agent.id) == agent_id))
        return found

    async def duplicate(self, agent_id: UUID, new_name: str) -> AgentRecord | None:
        """Store a copy of the current content as a new agent. Raises `NameTaken`."""
        original = await self.get(agent_id)
        if original is None:
            return None
        return await self.add(
            user_id=original.user_id,
            name=new_name,
            api_key_id=original.api_key_id,
            content=_content(original),
        )

    async def versions(self, agent_id: UUID) -> list[AgentVersionRecord]:
        """Return all versions, the newest first."""
        found = await self._session.scalars(
            select(AgentVersion)
            .where(col(AgentVersion.agent_id) == agent_id)
            .order_by(col(AgentVersion.version).desc())
        )
        return [AgentVersionRecord.model_validate(each, from_attributes=True) for each in found]

    async def version(self, version_id: UUID) -> AgentVersionRecord | None:
        """Return a version; there is none of an agent that was deleted."""
        found = await self._session.get(AgentVersion, version_id)
        if found is None:
            return None
        return AgentVersionRecord.model_validate(found, from_attributes=True)

    async def _one(self, agent_id: UUID) -> AgentRecord:
        return (await self._read(_joined().where(col(Agent.id) == agent_id)))[0]

    async def _read(self, query: Select[Agent, AgentVersion, str]) -> list[AgentRecord]:
        rows = await self._session.execute(query.execution_options(populate_existing=True))
        return [_record(*row) for row in rows]

    async def lock(self, agent_id: UUID) -> AgentRecord | None:
        """Lock the agent, so that versions are numbered one by one and no test starts meanwhile."""
        await self._session.execute(
            select(col(Agent.id)).where(col(Agent.id) == agent_id).with_for_update()
        )
        return await self.get(agent_id)

    async def _change(self, agent_id: UUID, columns: Mapping[str, Any]) -> None:
        if not columns:
            return
        change = update(Agent).where(col(Agent.id) == agent_id).values(**columns)
        try:
            async with self._session.begin_nested():
                await self._session.execute(change)
        except IntegrityError as error:
            raise _name_taken(error, str(columns.get("name", "its name"))) from error

    async def _check_key(self, key_id: UUID | None) -> None:
        if key_id is None:
            return
        query = select(col(ApiKey.id)).where(col(ApiKey.id) == key_id)
        if await self._session.scalar(query) is None:
            raise ApiKeyUnknown(str(key_id))

    async def _check_idle(self, agent_id: UUID) -> None:
        is_tested = exists().where(
            col(TradingSession.agent_id) == agent_id, col(TradingSession.status).in_(UNFINISHED)
        )
        if await self._session.scalar(select(is_tested)):
            raise AgentBusy(str(agent_id))

    def _add_version(self, agent_id: UUID, version: int, content: AgentContent) -> None:
        self._session.add(
            AgentVersion(
                agent_id=agent_id,
                version=version,
                mode=content.mode,
                model=content.model,
                indicators=list(content.indicators),
                custom_indicators=list(content.custom_indicators),
                strategy_prompt=content.strategy_prompt,
                content_hash=content.hash(),
            )
        )


def _joined() -> Select[Agent, AgentVersion, str]:
    is_current = and_(
        col(AgentVersion.agent_id) == col(Agent.id),
        col(AgentVersion.version) == col(Agent.current_version),
    )
    return (
        select(Agent, AgentVersion, col(ApiKey.key_prefix))
        .join(AgentVersion, is_current)
        .outerjoin(ApiKey, col(ApiKey.id) == col(Agent.api_key_id))
    )


def _conditions(wanted: AgentFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.search:
        conditions.append(
            or_(
                col(Agent.name).icontains(wanted.search, autoescape=True),
                col(AgentVersion.model).icontains(wanted.search, autoescape=True),
            )
        )
    if wanted.mode is not None:
        conditions.append(col(Agent.mode) == wanted.mode)
    if wanted.model is not None:
        conditions.append(col(AgentVersion.model) == wanted.model)
    if wanted.archived is not None:
        conditions.append(col(Agent.is_archived).is_(wanted.archived))
    return conditions


def _record(agent: Agent, version: AgentVersion, key_prefix: str | None) -> AgentRecord:
    content = version.model_dump(
        include={
            "model",
            "indicators",
            "custom_indicators",
            "strategy_prompt",
            "content_hash",
        }
    )
    return AgentRecord.model_validate(
        agent.model_dump()
        | content
        | {"agent_version_id": version.id, "api_key_prefix": key_prefix}
    )


def _content(agent: AgentRecord) -> AgentContent:
    return AgentContent(
        mode=agent.mode,
        model=agent.model,
        indicators=tuple(agent.indicators),
        custom_indicators=tuple(agent.custom_indicators),
        strategy_prompt=agent.strategy_prompt,
    )


def _name_taken(error: IntegrityError, name: str) -> Exception:
    return NameTaken(name) if isinstance(error.orig, UniqueViolation) else error
