"""The simulated OpenRouter speaks the protocol, trades sensibly, and fails when told to."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from agents.ai_summaries import FinishedTest, build_summary_messages, clean_summary
from agents.prompts import build_messages
from agents.replies import InvalidReply, parse_reply, repair_messages
from local.simulators.faults import HTTP_ERRORS
from local.simulators.openrouter import create_app
from local.simulators.traders import TRADERS, decide
from tests.agents.views import make_position, make_rules, make_view, walk
from tests.loopback import TLS, serve_app
from trading import simulation
from trading.decisions import Action
from trading.orders import Side, Trade
from trading.rules import Mode, Rules

AUTHORIZATION = {"Authorization": "Bearer sk-test"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serve_app(create_app()) as url:
        yield url


@pytest.fixture
def http(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, headers=AUTHORIZATION, timeout=10, verify=TLS) as client:
        client.delete("/debug/requests")
        yield client


def body_for(model: str, **changes: Any) -> dict[str, Any]:
    return {"model": model, "messages": build_messages(make_view())} | changes


def ask(http: httpx.Client, model: str, **changes: Any) -> httpx.Response:
    return http.post("/chat/completions", json=body_for(model, **changes))


def reply_of(response: httpx.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


def summary(http: httpx.Client) -> dict[str, Any]:
    counted: dict[str, Any] = http.get("/debug/requests").json()
    return counted


# The protocol


@pytest.mark.parametrize("trader", TRADERS)
def test_every_trader_gives_a_decision_in_the_asked_shape(http: httpx.Client, trader: str):
    response = ask(http, f"simulated/{trader}")

    decision = parse_reply(reply_of(response))
    assert decision.reasoning.startswith("[simulated] ")
    assert response.json()["provider"] == "Simulated"
    assert response.json()["usage"]["cost"] > 0
    if decision.action in {Action.LONG, Action.SHORT}:
        assert decision.order is not None
        assert decision.order.has_stop


def test_the_same_prompt_gets_the_same_reply_streamed_or_not(http: httpx.Client):
    whole = ask(http, "simulated/momentum")
    stream = ask(http, "simulated/momentum", stream=True)

    events = [line.removeprefix("data: ") for line in stream.text.split("\n") if line]
    chunks = [json.loads(event) for event in events[1:-1]]
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert events[0] == ": OPENROUTER PROCESSING"
    assert events[-1] == "[DONE]"
    assert text == reply_of(whole)
    assert len(chunks) > 4
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:]] == [None, "stop"]
    assert chunks[-1]["usage"] == whole.json()["usage"]
    assert stream.headers["x-generation-id"] == chunks[0]["id"]


def test_the_catalogue_names_the_traders_and_the_faults(http: httpx.Client):
    models = {model["id"]: model for model in http.get("/models").json()["data"]}

    assert {f"simulated/{trader}" for trader in TRADERS} <= set(models)
    assert {"simulated/momentum:429", "simulated/momentum:half-stream"} <= set(models)
    assert all(model["name"].startswith("Simulated") for model in models.values())
    assert "structured_outputs" in models["simulated/momentum"]["supported_parameters"]
    assert (
        "structured_outputs" not in models["simulated/momentum:no-schema"]["supported_parameters"]
    )


def test_keys_are_told_apart_by_how_they_begin(http: httpx.Client):
    def status(key: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return http.post(
            "/chat/completions", json=body_for("simulated/hold"), headers=headers
        ).status_code

    assert (status("sk-any"), status("sk-invalid-1"), status("sk-broke-1")) == (200, 401, 402)
    assert http.get("/key").json()["data"]["label"] == "simulated key"
    assert http.get("/key", headers={"Authorization": ""}).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{}]},
        {"model": "simulated/hold"},
        {"model": "simulated/hold", "messages": []},
        {"model": "simulated/hold", "messages": ["hello"]},
        {"model": "simulated/unheard-of", "messages": [{}]},
        {"model": "simulated/hold:unheard-of", "messages": [{}]},
        {"model": "openai/gpt-7", "messages": [{}]},
        [],
    ],
    ids=str,
)
def test_a_request_that_makes_no_sense_is_refused(http: httpx.Client, body: object):
    response = http.post("/chat/completions", json=body)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == 400


def test_a_finished_test_is_summed_up_by_its_figures(http: httpx.Client):
    messages = build_summary_messages(FINISHED)
    answers = [
        http.post("/chat/completions", json={"model": "simulated/flip", "messages": messages})
        for _ in range(2)
    ]

    said = reply_of(answers[0])
    assert said == reply_of(answers[1]) == clean_summary(said)
    assert said.startswith("[simulated] The test came to -3.5 %")
    assert "I closed 12 trades and won 4 of them; fees took 80." in said
    assert said.endswith("Fewer trades would help most.")


FINISHED = FinishedTest(
    kind="backtest",
    asset="BTC/USDT",
    timeframe="1h",
    rules=make_rules(),
    strategy_prompt="Trade a lot.",
    end_reason="end_of_test",
    figures={
        "return_pct": -3.5,
        "buy_and_hold_return_pct": None,
        "max_drawdown_pct": 4.0,
        "trades": 12,
        "winning_trades": 4,
        "pnl_before_costs": 20.0,
        "fees": 80.0,
    },
    trades=[],
)


def test_a_prompt_without_a_chart_is_answered_with_hold(http: httpx.Client):
    for content in ("hello", None, "<candles>\nx\n1,2\n</candles>", "<candles>\n\n</candles>"):
        messages = [{"role": "user", "content": content}]
        assert parse_reply(reply_of(ask(http, "simulated/trend", messages=messages))).action == (
            Action.HOLD
        )


# Faults


@pytest.mark.parametrize("status", HTTP_ERRORS)
def test_an_http_error_befalls_each_body_once(http: httpx.Client, status: int):
    model = f"simulated/hold:{status}"

    statuses = [ask(http, model, user=user).status_code for user in ("a", "a", "b", "b")]

    assert statuses == [status, 200, status, 200]


def test_an_http_error_may_befall_every_request_or_only_the_first(http: httpx.Client):
    always = [ask(http, "simulated/hold:429-always").status_code for _ in range(3)]
    first = [ask(http, "simulated/hold:402-first", user=user).status_code for user in "aab"]

    assert always == [429, 429, 429]
    assert first == [402, 200, 200]


@pytest.mark.parametrize("status", [429, 503])
def test_waiting_is_asked_for_in_a_header(http: httpx.Client, status: int):
    assert ask(http, f"simulated/hold:{status}").headers["retry-after"] == "1"


@pytest.mark.parametrize("fault", ["garbage", "nan", "unknown-action", "huge"])
def test_an_invalid_reply_is_mended_when_its_error_is_shown(http: httpx.Client, fault: str):
    messages = build_messages(make_view())
    reply = reply_of(ask(http, f"simulated/flip:{fault}"))
    with pytest.raises(InvalidReply) as caught:
        parse_reply(reply)

    second = repair_messages(messages, reply, caught.value)

    mended = parse_reply(reply_of(ask(http, f"simulated/flip:{fault}", messages=second)))
    assert mended.action is not Action.HOLD
    with pytest.raises(InvalidReply):
        parse_reply(reply_of(ask(http, f"simulated/flip:{fault}-always", messages=second)))


def test_huge_is_five_megabytes(http: httpx.Client):
    assert len(ask(http, "simulated/hold:huge", stream=True).content) > 4_900_000


def test_wrong_side_is_a_long_with_its_stop_above_the_price(http: httpx.Client):
    decision = parse_reply(reply_of(ask(http, "simulated/hold:wrong-side")))

    assert decision.action is Action.LONG
    assert decision.order is not None
    assert decision.order.stop_loss_price == pytest.approx(make_view().candles[-1].close * 1.05)


def test_a_fenced_reply_is_found(http: httpx.Client):
    reply = reply_of(ask(http, "simulated/hold:fenced"))

    assert reply.startswith("[simulated] My decision:")
    assert parse_reply(reply).action is Action.HOLD


def test_half_a_stream_has_text_and_no_end(http: httpx.Client):
    text = ask(http, "simulated/hold:half-stream", stream=True).text

    assert '"content":"' in text
    assert "[DONE]" not in text
    assert '"stop"' not in text


def test_a_pace_is_kept(http: httpx.Client):
    started = time.perf_counter()
    ask(http, "simulated/hold:delay-30", stream=True)

    assert time.perf_counter() - started > 0.15


# The ledger


def test_requests_are_counted_by_their_body(http: httpx.Client):
    for user in ("a", "a", "b"):
        ask(http, "simulated/hold", user=user)
    ask(http, "simulated/hold:500")
    ask(http, "simulated/hold:half-stream", stream=True)

    counted = summary(http)

    assert (counted["total"], counted["distinct"]) == (5, 4)
    assert (counted["refused"], counted["started"], counted["completed"]) == (1, 4, 3)
    assert sorted(entry["requests"] for entry in counted["by_hash"].values()) == [1, 1, 1, 2]
    assert counted["in_flight"] == 0


def test_the_ledger_can_be_cleared(http: httpx.Client):
    ask(http, "simulated/hold:429")

    assert http.delete("/debug/requests").status_code == 200

    assert summary(http)["total"] == 0
    assert ask(http, "simulated/hold:429").status_code == 429


def test_a_second_purchase_has_another_generation_id(http: httpx.Client):
    ids = {ask(http, "simulated/hold").json()["id"] for _ in range(2)}

    assert len(ids) == 2


# Trading


def backtest(trader: str, *, rules: Rules, seed: int, count: int = 500) -> list[Trade]:
    candles = walk(30 + count, seed=seed)
    state, trades = simulation.start(rules), []
    for index in range(count):
        candle = candles[30 + index]
        step = simulation.advance(state, candle, rules)
        trades += [] if step.closed is None else [step.closed]
        view = make_view(
            index,
            rules=rules,
            candles=candles[index + 1 : index + 31],
            position=step.state.position,
            equity=step.state.equity,
        )
        decision = parse_reply(json.dumps(decide(trader, build_messages(view))))
        verdict = simulation.decide(step.state, decision, candle, rules, is_last=index == count - 1)
        state = verdict.state
    return trades


@pytest.mark.parametrize("trader", ["momentum", "mean-reversion", "trend", "flip"])
@pytest.mark.parametrize("mode", list(Mode))
def test_a_demo_sees_trades_of_both_sides_won_and_lost(trader: str, mode: Mode):
    rules = make_rules(mode=mode, max_daily_loss=None, max_total_drawdown=None)

    trades = backtest(trader, rules=rules, seed=3)

    sides = Counter(trade.side for trade in trades)
    won = sum(trade.pnl_amount > 0 for trade in trades)
    assert len(trades) >= 15
    if (trader, mode) != ("flip", Mode.MONK):  # four hours between entries leave it one side
        assert min(sides[Side.LONG], sides[Side.SHORT]) >= 3
    assert 3 <= won <= len(trades) - 3


@pytest.mark.parametrize("trader", TRADERS)
def test_a_flat_market_is_no_problem(trader: str):
    candle = walk(1)[0]
    flat = type(candle)(
        open_time=candle.open_time, open=5.0, high=5.0, low=5.0, close=5.0, volume=0.0
    )
    for position in (None, make_position(entry_price=5.0)):
        view = make_view(candles=[flat] * 30, position=position)
        assert parse_reply(json.dumps(decide(trader, build_messages(view)))).reasoning


def test_traders_read_positions_and_few_candles():
    held = make_view(99, position=make_position(entry_candle=10))

    assert decide("momentum", build_messages(held))["action"] == "close"
    assert decide("always-long", build_messages(held))["action"] == "hold"
    assert "too few" in decide("trend", build_messages(make_view(3)))["reasoning"]


def test_a_decision_costs_less_than_a_millisecond():
    prompts = [build_messages(make_view(index, walk=walk(130))) for index in range(30, 130)]

    started = time.process_time()
    for prompt in prompts:
        decide("momentum", prompt)

    assert (time.process_time() - started) / len(prompts) < 0.001
