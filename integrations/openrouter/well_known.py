"""Models to choose from while OpenRouter's own catalogue cannot be reached.

Without prices, which change: what a model costs is OpenRouter's to say.
"""

from typing import Final

from integrations.openrouter.schemas import ModelInfo

_TEXT: Final = frozenset({"text"})
_IMAGES: Final = frozenset({"text", "image"})
_PARAMETERS: Final = frozenset({"max_tokens", "response_format", "temperature", "tools"})


def _model(id: str, name: str, context_length: int, modalities: frozenset[str]) -> ModelInfo:
    return ModelInfo(
        id=id,
        name=name,
        description="",
        context_length=context_length,
        supported_parameters=_PARAMETERS,
        input_modalities=modalities,
        prompt_price=None,
        completion_price=None,
    )


WELL_KNOWN_MODELS: Final = (
    _model("anthropic/claude-sonnet-4", "Anthropic: Claude Sonnet 4", 200_000, _IMAGES),
    _model("deepseek/deepseek-chat", "DeepSeek: DeepSeek V3", 64_000, _TEXT),
    _model("google/gemini-2.5-flash", "Google: Gemini 2.5 Flash", 1_048_576, _IMAGES),
    _model("google/gemini-2.5-pro", "Google: Gemini 2.5 Pro", 1_048_576, _IMAGES),
    _model("meta-llama/llama-3.3-70b-instruct", "Meta: Llama 3.3 70B Instruct", 128_000, _TEXT),
    _model("openai/gpt-4.1-mini", "OpenAI: GPT-4.1 Mini", 1_047_576, _IMAGES),
    _model("openai/gpt-4o", "OpenAI: GPT-4o", 128_000, _IMAGES),
    _model("openai/gpt-4o-mini", "OpenAI: GPT-4o-mini", 128_000, _IMAGES),
)
