"""Structured logs of every process, with nothing secret in them."""

import logging
import logging.config
import re
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED = "[redacted]"
SECRET_NAME = re.compile(
    r"(api[-_]?key$|authorization|cookie|password|secret|token$|encryption|private[-_]?key|jwt)",
    re.IGNORECASE,
)
# What gives a secret away in the middle of a text: a key of OpenRouter or Clerk, a session token, a
# a query parameter (WebSocket clients send their token in one), the password of an address.
SECRET_TEXTS = (
    (re.compile(r"sk-or-[\w-]+"), REDACTED),
    (re.compile(r"\b(?:sk_(?:live|test)_\w+|whsec_[\w+/=]+)"), REDACTED),
    (re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*"), REDACTED),
    (re.compile(r"(?i)\b(bearer)\s+[\w.~+/=-]+"), rf"\1 {REDACTED}"),
    (
        re.compile(r"(?i)([?&](?:[\w-]*token|api_?key|signature|secret)=)[^&\s\"'#]+"),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"(://[^:/@\s]*:)[^@/\s]+@"), rf"\1{REDACTED}@"),
)
# They log each request with its address, or each connection; errors still come through.
QUIET_LOGGERS = ("httpx", "httpcore", "uvicorn.access", "websockets", "asyncio")


def redacted_text(text: str) -> str:
    """The text with everything in it that looks like a secret replaced."""
    for pattern, replacement in SECRET_TEXTS:
        text = pattern.sub(replacement, text)
    return text


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: the event with secrets replaced, by name and by look."""
    return {name: _redacted(name, value) for name, value in event.items()}


def _redacted(name: str, value: Any) -> Any:
    if SECRET_NAME.search(name) and value is not None:
        return REDACTED
    if isinstance(value, dict):
        return {str(key): _redacted(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted("", item) for item in value]
    if isinstance(value, str):
        return redacted_text(value)
    return value if isinstance(value, int | float | bool | None) else redacted_text(str(value))


def configure_logging(*, level: str = "info", form: str = "json", process: str = "") -> None:
    """Send structlog's and the standard library's records to stdout, in one form."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _named(process),
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(_standard_logging(level, form, shared))


def _named(process: str) -> Processor:
    def add_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {"process": process, **event} if process else event

    return add_process


def _standard_logging(level: str, form: str, shared: list[Processor]) -> dict[str, Any]:
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "foreign_pre_chain": shared,
        "processors": [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            redact,  # last, so that it sees tracebacks as text
            _renderer(form),
        ],
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"structured": formatter},
        "handlers": {
            "stdout": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stdout",
                "formatter": "structured",
            }
        },
        "root": {"handlers": ["stdout"], "level": level.upper()},
        "loggers": {
            "uvicorn.error": {"filters": [_is_no_refusal]},
            **{
                name: {"level": "WARNING", "handlers": [], "propagate": True}
                for name in QUIET_LOGGERS
            },
        },
    }


def _is_no_refusal(record: logging.LogRecord) -> bool:
    """uvicorn calls it an error when a WebSocket is refused with an answer."""
    return record.msg != "ASGI callable returned without completing handshake."


def _renderer(form: str) -> Processor:
    if form == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=False)
