"""The users' agents and their versions."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import CurrentUser, InjectedServices, Services
from api.errors import Conflict, Invalid, NotFound
from api.indicators import checked_plan
from api.schemas.agent_stats import AgentStatsAnswer, AgentStatsOut
from api.schemas.agents import (
    AgentAnswer,
    AgentDetail,
    AgentOut,
    AgentRemoved,
    AgentsAnswer,
    AgentsQuery,
    AgentUpdate,
    AgentVersionOut,
    AgentVersionsAnswer,
    CustomIndicatorBody,
    DuplicateAgent,
    NewAgent,
)
from api.schemas.errors import documented
from db.errors import AgentBusy, ApiKeyUnknown, NameTaken
from db.models.agents import AgentRecord
from db.models.inbox import NewActivity
from db.repositories.agent_stats import AgentStatsRepository
from db.repositories.agents import (
    AgentChanges,
    AgentContent,
    AgentRepository,
)
from db.repositories.api_keys import ApiKeyRepository
from db.repositories.inbox import InboxRepository
from integrations.errors import IntegrationError

router = APIRouter(prefix="/api/agents", tags=["agents"], responses=documented(401, 403, 503))

AgentActivity = Literal["agent_created", "agent_updated", "agent_deleted"]

_CONTENT = ("mode", "model", "indicators", "custom_indicators", "strategy_prompt")
_COLUMNS = ("name", "api_key_id")


@router.get("", responses=documented(422))
async def list_agents(
    services: InjectedServices, user: CurrentUser, wanted: Annotated[AgentsQuery, Query()]
) -> AgentsAnswer:
    async with services.database.for_user(user.id) as session:
        agents, total = await AgentRepository(session).page(wanted.to_filter())
    return AgentsAnswer(agents=[AgentOut.of(agent) for agent in agents], total=total)


@router.post("", responses=documented(409, 422))
async def create_agent(services: InjectedServices, user: CurrentUser, new: NewAgent) -> AgentAnswer:
    """Create an agent; without `api_key_id` it uses the user's default key."""
    checked_plan(new.indicators, new.custom_indicators)
    await _check_model(services, new.model)
    content = AgentContent(
        mode=new.mode,
        model=new.model,
        indicators=tuple(new.indicators),
        custom_indicators=_plain(new.custom_indicators),
        strategy_prompt=new.strategy_prompt,
    )
    try:
        async with services.database.for_user(user.id) as session:
            agent = await AgentRepository(session).add(
                user_id=user.id,
                name=new.name,
                api_key_id=new.api_key_id or await _default_key(ApiKeyRepository(session)),
                content=content,
            )
            await _record(session, agent, "agent_created", "created")
    except NameTaken:
        raise _name_taken(new.name) from None
    except ApiKeyUnknown:
        raise _key_unknown() from None
    return AgentAnswer(agent=AgentOut.of(agent), message="Agent created")


@router.get("/{agent_id}", responses=documented(404, 422))
async def get_agent(services: InjectedServices, user: CurrentUser, agent_id: UUID) -> AgentDetail:
    async with services.database.for_user(user.id) as session:
        agent = _existing(await AgentRepository(session).get(agent_id))
    shown = AgentOut.of(agent)
    return AgentDetail(**shown.model_dump(), agent=shown)


@router.put("/{agent_id}", responses=documented(404, 409, 422))
async def update_agent(
    services: InjectedServices, user: CurrentUser, agent_id: UUID, update: AgentUpdate
) -> AgentAnswer:
    """Change only what is named; changed content makes a new version, running tests keep theirs."""
    if update.model is not None:
        await _check_model(services, update.model)
    try:
        async with services.database.for_user(user.id) as session:
            agents = AgentRepository(session)
            before = _existing(await agents.get(agent_id))
            _check_indicators(update, before)
            agent = _existing(await agents.update(agent_id, _changes(update)))
            await _record(session, agent, "agent_updated", "changed")
    except NameTaken:
        raise _name_taken(update.name or "") from None
    except ApiKeyUnknown:
        raise _key_unknown() from None
    return AgentAnswer(agent=AgentOut.of(agent), message="Agent updated")


@router.delete("/{agent_id}", responses=documented(404, 409, 422))
async def remove_agent(
    services: InjectedServices,
    user: CurrentUser,
    agent_id: UUID,
    archive: bool = False,
) -> AgentRemoved:
    """Archive or delete an agent; its results stay under its name."""
    try:
        async with services.database.for_user(user.id) as session:
            agents = AgentRepository(session)
            agent = _existing(await (agents.archive if archive else agents.delete)(agent_id))
            if archive:
                await _record(session, agent, "agent_updated", "archived")
            else:
                await _record(session, agent, "agent_deleted", "deleted")
    except AgentBusy:
        raise Conflict(
            "A test of this agent is still running. Stop it first.", code="AGENT_BUSY"
        ) from None
    return AgentRemoved(message="Agent archived" if archive else "Agent deleted", id=agent_id)


@router.post("/{agent_id}/duplicate", status_code=201, responses=documented(404, 409, 422))
async def duplicate_agent(
    services: InjectedServices, user: CurrentUser, agent_id: UUID, wanted: DuplicateAgent
) -> AgentAnswer:
    try:
        async with services.database.for_user(user.id) as session:
            agents = AgentRepository(session)
            agent = _existing(await agents.duplicate(agent_id, wanted.new_name))
            await _record(session, agent, "agent_created", "created as a copy")
    except NameTaken:
        raise _name_taken(wanted.new_name) from None
    return AgentAnswer(agent=AgentOut.of(agent), message="Agent duplicated")


@router.post("/{agent_id}/restore", responses=documented(404, 409, 422))
async def restore_agent(
    services: InjectedServices, user: CurrentUser, agent_id: UUID
) -> AgentAnswer:
    try:
        async with services.database.for_user(user.id) as session:
            agent = _existing(await AgentRepository(session).restore(agent_id))
            await _record(session, agent, "agent_updated", "restored")
    except NameTaken:
        raise Conflict(
            "Another agent has this name by now. Rename that one first.", code="NAME_TAKEN"
        ) from None
    return AgentAnswer(agent=AgentOut.of(agent), message="Agent restored")


@router.get("/{agent_id}/stats", responses=documented(404, 422))
async def get_agent_stats(
    services: InjectedServices, user: CurrentUser, agent_id: UUID
) -> AgentStatsAnswer:
    """What its finished tests came to, under all of its versions."""
    async with services.database.for_user(user.id) as session:
        _existing(await AgentRepository(session).get(agent_id))
        stats = AgentStatsRepository(session)
        totals = await stats.totals(agent_id)
        assets, versions = await stats.by_asset(agent_id), await stats.by_version(agent_id)
    return AgentStatsAnswer(stats=AgentStatsOut.of(totals, assets, versions))


@router.get("/{agent_id}/versions", responses=documented(404, 422))
async def list_versions(
    services: InjectedServices, user: CurrentUser, agent_id: UUID
) -> AgentVersionsAnswer:
    """All versions, the newest first, with what each of them changed."""
    async with services.database.for_user(user.id) as session:
        agents = AgentRepository(session)
        _existing(await agents.get(agent_id))
        versions = await agents.versions(agent_id)
        figures = await AgentStatsRepository(session).by_version(agent_id)
    tested = {each.version: each for each in figures}
    earlier = [*versions[1:], None]
    return AgentVersionsAnswer(
        versions=[
            AgentVersionOut.of(version, before, tested.get(version.version))
            for version, before in zip(versions, earlier, strict=True)
        ]
    )


async def _record(
    session: AsyncSession, agent: AgentRecord, activity: AgentActivity, what: str
) -> None:
    """Add a line to the user's history, in the transaction that did it."""
    await InboxRepository(session).record(
        NewActivity(
            user_id=agent.user_id,
            activity_type=activity,
            agent_id=None if activity == "agent_deleted" else agent.id,
            agent_name=agent.name,
            description=f"Agent {what}",
        )
    )


def _existing(agent: AgentRecord | None) -> AgentRecord:
    if agent is None:
        raise NotFound("agent")
    return agent


def _changes(update: AgentUpdate) -> AgentChanges:
    given = update.model_dump(exclude_unset=True)
    content = {name: given[name] for name in _CONTENT if given.get(name) is not None}
    if update.custom_indicators is not None:
        content["custom_indicators"] = _plain(update.custom_indicators)
    if update.indicators is not None:
        content["indicators"] = tuple(update.indicators)
    columns = {name: given[name] for name in _COLUMNS if given.get(name) is not None}
    return AgentChanges(columns=columns, content=content)


def _check_indicators(update: AgentUpdate, before: AgentRecord) -> None:
    """Check the content as it will be: a formula may use an indicator that the other part names."""
    if update.indicators is None and update.custom_indicators is None:
        return
    custom = update.custom_indicators
    if custom is None:
        custom = [CustomIndicatorBody(**each) for each in before.custom_indicators]
    checked_plan(before.indicators if update.indicators is None else update.indicators, custom)


async def _check_model(services: Services, model: str) -> None:
    """Refuse a model that the catalogue does not have; without a catalogue, believe the user."""
    try:
        known = {each.id for each in await services.openrouter.models()}
    except IntegrationError:
        return
    if known and model not in known:
        raise Invalid(f"OpenRouter has no model {model[:100]!r}.", ["body", "model"])


async def _default_key(keys: ApiKeyRepository) -> UUID | None:
    return next((key.id for key in await keys.all() if key.is_default), None)


def _plain(custom: list[CustomIndicatorBody]) -> tuple[dict[str, str], ...]:
    return tuple({"name": each.name, "formula": each.formula} for each in custom)


def _name_taken(name: str) -> Conflict:
    return Conflict(f"You already have an agent called {name!r}.", code="NAME_TAKEN")


def _key_unknown() -> Invalid:
    return Invalid("You have no API key with this id.", ["body", "api_key_id"])
