"""What a simulated model is told to do wrong, by the suffixes of its name.

| suffix | effect |
|---|---|
| `:400` … `:404`, `:408`, `:409` | that HTTP error |
| `:429`, `:500`, `:502`, `:503` | that HTTP error; 429 and 503 with `Retry-After: 1` |
| `:half-stream` | the stream ends in the middle of the reply |
| `:error-mid-stream` | an error object in the middle of the stream |
| `:garbage` | prose without any JSON |
| `:nan` | a size of `NaN` |
| `:huge` | 5 MB of reasoning |
| `:wrong-side` | a long with its stop above the price |
| `:unknown-action` | the action `moon` |
| `:fenced` | a valid reply inside prose and a code fence |
| `:thinking` | reasoning deltas before the reply |
| `:whole` | one JSON answer although a stream was asked for |
| `:no-schema` | 400 for `response_format: json_schema` |
| `:no-json` | 400 for any `response_format` |
| `:slow` | a quarter of a second before each piece |
| `:delay-N` | N milliseconds before each piece |
| `:hang` | a comment, then nothing |

Suffixes combine: `simulated/momentum:429:slow`. HTTP errors, `half-stream` and `error-mid-stream`
befall the first request of each distinct body, so that a retry goes well; `garbage`, `nan`, `huge`
and `unknown-action` befall every prompt, but not the second try that shows the error. With
`-always` they befall every request (`:429-always`), with `-first` only the first request to that
model (`:402-first`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

When = Literal["once", "always", "first"]

HTTP_ERRORS: Final[Mapping[int, str]] = {
    400: "The request is not valid",
    401: "No auth credentials found",
    402: "Insufficient credits",
    403: "This key may not use this model",
    404: "No endpoints found for this model",
    408: "The request timed out",
    409: "The request conflicts with another",
    429: "Rate limit exceeded",
    500: "Internal server error",
    502: "Provider returned error",
    503: "No provider is available",
}
CONTENT: Final = frozenset({"garbage", "nan", "huge", "unknown-action"})
REPEATABLE: Final = CONTENT | {"half-stream", "error-mid-stream", *map(str, HTTP_ERRORS)}
LASTING: Final = frozenset(
    {"wrong-side", "fenced", "thinking", "whole", "no-schema", "no-json", "slow", "hang"}
)
_SUFFIX = re.compile(r"(.+?)(?:-(always|first))?")
_DELAY = re.compile(r"delay-(\d{1,6})")
_SLOW_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """The faults in a model's name; `delay` is seconds before each piece, None where not told."""

    repeatable: Mapping[str, When]
    lasting: frozenset[str]
    delay: float | None

    def active(self, *, seen_body: bool, seen_model: bool, is_second_try: bool) -> frozenset[str]:
        """The faults of one request, by what came before it."""
        return self.lasting | {
            name
            for name, when in self.repeatable.items()
            if when == "always"
            or (when == "first" and not seen_model)
            or (when == "once" and not (is_second_try if name in CONTENT else seen_body))
        }


def parse_faults(suffixes: list[str]) -> Faults | None:
    """The faults of the suffixes, or None when one of them is unknown."""
    repeatable: dict[str, When] = {}
    lasting: set[str] = set()
    delay: float | None = None
    for suffix in suffixes:
        name, when = _split(suffix)
        if milliseconds := _DELAY.fullmatch(suffix):
            delay = int(milliseconds[1]) / 1000
        elif name in REPEATABLE:
            repeatable[name] = when
        elif suffix in LASTING:
            lasting.add(suffix)
        else:
            return None
    if "slow" in lasting and delay is None:
        delay = _SLOW_SECONDS
    return Faults(repeatable=repeatable, lasting=frozenset(lasting), delay=delay)


def _split(suffix: str) -> tuple[str, When]:
    match = _SUFFIX.fullmatch(suffix)
    if match is None:
        return suffix, "once"
    when: When = "always" if match[2] == "always" else "first" if match[2] == "first" else "once"
    return match[1], when
