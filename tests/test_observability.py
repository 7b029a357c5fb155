"""Logs are one JSON object a line, and no secret gets into them."""

import json
import logging
from typing import Any

import pytest
import structlog

from observability import QUIET_LOGGERS, REDACTED, configure_logging, redacted_text

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0.c2lnbmF0dXJl"
KEY = "sk-or-v1-0123456789abcdef"


@pytest.fixture(autouse=True)
def restored_logging():
    loggers = [logging.getLogger(name) for name in ("", *QUIET_LOGGERS)]
    former = [(logger.handlers[:], logger.level) for logger in loggers]
    yield
    for logger, (handlers, level) in zip(loggers, former, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)
    structlog.reset_defaults()


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    "text",
    [
        f"the protocol was alphalab, {TOKEN}",
        f"key {KEY} refused",
        f'GET /ws/backtest/1?token={TOKEN} "accepted"',
        "GET /ws/backtest/1?last_seq=4&token=opaque-token HTTP/1.1",
        f"Authorization: Bearer {TOKEN}",
        "postgresql://me:opaque-token@db:5432/alphalab",
        "redis://:opaque-token@cache:6379/0",
        "refused sk_live_opaquetoken and sk_test_opaquetoken",
        "verified by whsec_opaquetoken+/=",
    ],
)
def test_a_secret_inside_a_text_is_replaced(text: str):
    shown = redacted_text(text)

    assert REDACTED in shown
    assert not any(secret in shown for secret in (KEY, TOKEN, "opaque-token", "opaquetoken"))


def test_an_ordinary_text_stays_as_it_is():
    text = "candle 412 of session 0198: 3,512 tokens, http://127.0.0.1:5000/docs?page=2"
    assert redacted_text(text) == text


def test_a_field_named_like_a_secret_is_replaced_wherever_it_is(capsys: pytest.CaptureFixture[str]):
    configure_logging(process="api")
    structlog.get_logger("test").info(
        "called", api_key="abc", request={"headers": {"Authorization": "abc"}, "tokens": 12}
    )

    line = _lines(capsys)[0]
    assert line["event"] == "called"
    assert line["process"] == "api"
    assert line["api_key"] == REDACTED
    assert line["request"] == {"headers": {"Authorization": REDACTED}, "tokens": 12}


def test_records_of_other_libraries_come_out_the_same_way(capsys: pytest.CaptureFixture[str]):
    configure_logging(process="api")
    logging.getLogger("uvicorn.error").info('"WebSocket /ws/backtest/1?token=%s" [accepted]', TOKEN)

    line = _lines(capsys)[0]
    assert line["event"] == f'"WebSocket /ws/backtest/1?token={REDACTED}" [accepted]'


def test_a_traceback_is_text_without_secrets(capsys: pytest.CaptureFixture[str]):
    configure_logging(process="api")
    structlog.get_logger("test").error("failed", exc_info=ValueError(f"refused {KEY}"))

    line = _lines(capsys)[0]
    assert "ValueError: refused" in line["exception"]
    assert KEY not in json.dumps(line)


def test_requests_of_http_clients_are_not_logged(capsys: pytest.CaptureFixture[str]):
    configure_logging(process="api")
    logging.getLogger("httpx").info("HTTP Request: GET https://openrouter.ai/api/v1/key")

    assert _lines(capsys) == []
