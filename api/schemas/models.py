"""Language models to choose from, as OpenRouter describes them."""

from typing import Self

from pydantic import Field

from api.schemas.base import Shape
from integrations.openrouter.schemas import ModelInfo

# From this many tokens on a model is said to have a long context.
LONG_CONTEXT = 200_000

_ABILITIES = frozenset({"tools", "reasoning", "structured_outputs"})
_JSON_PARAMETERS = frozenset({"response_format", "structured_outputs"})


class ModelOut(Shape):
    """A language model; prices are US dollars per token, null where they are unknown or vary."""

    id: str = Field(examples=["openai/gpt-4o-mini"])
    name: str = Field(examples=["OpenAI: GPT-4o-mini"])
    provider: str = Field(examples=["openai"])
    description: str
    context_window: int | None = Field(examples=[128_000], description="Tokens.")
    capabilities: list[str] = Field(
        examples=[["image", "structured_outputs", "tools"]],
        description="What it takes beside text, and what it can do beside replying.",
    )
    tags: list[str] = Field(examples=[["long_context"]])
    is_multimodal: bool = Field(description="Whether it takes more than text.")
    is_free: bool
    structured_data: bool = Field(description="Whether its replies can be held to JSON.")
    price_prompt: float | None = Field(examples=[1.5e-7])
    price_completion: float | None = Field(examples=[6e-7])

    @classmethod
    def of(cls, model: ModelInfo) -> Self:
        beside_text = model.input_modalities - {"text"}
        return cls(
            id=model.id,
            name=model.name,
            provider=model.id.partition("/")[0],
            description=model.description,
            context_window=model.context_length,
            capabilities=sorted(beside_text | (_ABILITIES & model.supported_parameters)),
            tags=_tags(model),
            is_multimodal=bool(beside_text),
            is_free=model.is_free,
            structured_data=bool(model.supported_parameters & _JSON_PARAMETERS),
            price_prompt=model.prompt_price,
            price_completion=model.completion_price,
        )


def _tags(model: ModelInfo) -> list[str]:
    is_long = model.context_length is not None and model.context_length >= LONG_CONTEXT
    tags = {
        "free": model.is_free,
        "long_context": is_long,
        "simulated": model.id.startswith("simulated/"),
    }
    return [tag for tag, applies in tags.items() if applies]
