"""Agents: a model, a strategy and the indicators it is shown."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field

from api.schemas.base import Filters, Page, RequestBody, Search, Shape, Text
from db.models.agents import AgentRecord, AgentVersionRecord
from db.repositories.agent_stats import VersionFigures
from db.repositories.agents import AgentFilter, AgentSort

Mode = Literal["monk", "omni"]
AgentName = Annotated[Text, Field(min_length=2, max_length=100, examples=["Momentum Max"])]
ModelId = Annotated[Text, Field(min_length=1, max_length=200, examples=["openai/gpt-4o-mini"])]
Prompt = Annotated[
    Text,
    Field(
        min_length=50,
        max_length=4000,
        examples=["Buy strength: go long when RSI crosses above 50 with rising volume."],
    ),
]
Identifier = Annotated[Text, Field(min_length=1, max_length=100)]


def _no_time(name: str) -> str:
    if name == "time":
        raise ValueError("is what a candle's own time is called; choose another name")
    return name


class CustomIndicatorBody(RequestBody):
    name: Annotated[
        Text, AfterValidator(_no_time), Field(min_length=1, max_length=50, examples=["stretch"])
    ]
    formula: Annotated[Text, Field(min_length=1, max_length=500)] = Field(
        examples=["(close - sma_50) / atr_14"]
    )


class AgentsQuery(Filters):
    """`include_archived` true lists the archived agents only, `all` both kinds."""

    search: Search | None = None
    mode: Mode | None = None
    model: Search | None = None
    sort: AgentSort = "newest"
    include_archived: Literal["false", "true", "all"] = "false"
    page: Page = 1
    limit: Annotated[int, Field(ge=1, le=100)] = 20

    def to_filter(self) -> AgentFilter:
        return AgentFilter(
            search=self.search,
            mode=self.mode,
            model=self.model,
            archived={"false": False, "true": True, "all": None}[self.include_archived],
            sort=self.sort,
            page=self.page,
            limit=self.limit,
        )


class AgentOut(Shape):
    id: UUID
    name: str
    mode: Mode
    model: str
    api_key_id: UUID | None
    api_key_masked: str | None
    indicators: list[str]
    custom_indicators: list[CustomIndicatorBody]
    strategy_prompt: str
    version: int
    tests_run: int
    best_pnl: float | None
    total_profitable_tests: int
    avg_win_rate: float | None
    avg_drawdown: float | None
    is_archived: bool
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, agent: AgentRecord) -> Self:
        return cls.model_validate(
            agent.model_dump()
            | {"version": agent.current_version, "api_key_masked": agent.api_key_prefix}
        )


class AgentAnswer(Shape):
    agent: AgentOut
    message: str


class AgentDetail(AgentOut):
    """The agent at top level, and once more under `agent`."""

    agent: AgentOut


class AgentsAnswer(Shape):
    agents: list[AgentOut]
    total: int


class NewAgent(RequestBody):
    name: AgentName
    mode: Mode
    model: ModelId
    api_key_id: UUID | None = None
    indicators: Annotated[list[Identifier], Field(min_length=1, examples=[["rsi_14", "macd"]])]
    custom_indicators: list[CustomIndicatorBody] = Field(default_factory=list)
    strategy_prompt: Prompt


class AgentUpdate(RequestBody):
    """Only what is named is changed."""

    name: AgentName | None = None
    mode: Mode | None = None
    model: ModelId | None = None
    api_key_id: UUID | None = None
    indicators: Annotated[list[Identifier], Field(min_length=1)] | None = None
    custom_indicators: list[CustomIndicatorBody] | None = None
    strategy_prompt: Prompt | None = None


class DuplicateAgent(RequestBody):
    new_name: AgentName


class AgentRemoved(Shape):
    message: str = Field(examples=["Agent archived", "Agent deleted"])
    id: UUID


class AgentVersionOut(Shape):
    """A version; of one that was not tested yet, `avg_pnl` is 0."""

    version: int
    created_at: datetime
    changed: list[str] = Field(examples=[["model", "indicators"]])
    tests_run: int
    avg_pnl: float

    @classmethod
    def of(
        cls,
        version: AgentVersionRecord,
        before: AgentVersionRecord | None,
        figures: VersionFigures | None,
    ) -> Self:
        return cls(
            version=version.version,
            created_at=version.created_at,
            changed=[] if before is None else _changed(version, before),
            tests_run=figures.tests_run if figures else 0,
            avg_pnl=(figures.avg_pnl if figures else None) or 0.0,
        )


class AgentVersionsAnswer(Shape):
    versions: list[AgentVersionOut]


def _changed(after: AgentVersionRecord, before: AgentVersionRecord) -> list[str]:
    names = ("mode", "model", "indicators", "custom_indicators", "strategy_prompt")
    return [name for name in names if getattr(after, name) != getattr(before, name)]
