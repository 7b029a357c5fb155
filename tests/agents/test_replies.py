"""A reply becomes a decision, or one sentence about why it does not."""

import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents.replies import (
    DECISION_SCHEMA,
    MAX_REASONING_LENGTH,
    InvalidReply,
    parse_reply,
    partial_reasoning,
    repair_message,
    repair_messages,
)
from trading.decisions import Action, Decision, OrderTerms

ORDER = {"leverage": 2, "size_pct": 25, "stop_loss_pct": 1.5, "take_profit_pct": 3.0}
LONG = {"action": "long", "reasoning": "Up.", "confidence": 80, "order": ORDER}
PARSED = Decision(
    action=Action.LONG,
    reasoning="Up.",
    confidence=0.8,
    order=OrderTerms(leverage=2.0, size=0.25, stop_loss_distance=0.015, take_profit_distance=0.03),
)


def reply(**changes: object) -> str:
    return json.dumps(LONG | changes)


def order(**changes: object) -> OrderTerms:
    parsed = parse_reply(reply(order=ORDER | changes)).order
    assert parsed is not None
    return parsed


# Finding it


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(LONG),
        json.dumps(LONG, indent=2),
        f"```json\n{json.dumps(LONG)}\n```",
        f"```\n{json.dumps(LONG)}\n```\nGood luck!",
        f"I looked at {{the chart}} and {{'so'}}: {json.dumps(LONG)} That is all {{}}.",
        f'{{"note": "first"}} {json.dumps(LONG)}',
        f"{json.dumps(LONG)} {json.dumps({'action': 'hold'})}",
        f"{json.dumps(LONG)}}}}}]",
        json.dumps({"decision": LONG}),
        json.dumps([LONG]),
        f"\ufeff\n{json.dumps(LONG)}",
        f'<think>Maybe {{"action": "short"}}?</think>{json.dumps(LONG)}',
        f'<think>Maybe {{"action": "short"}}?</think> or <THINKING>x</THINKING>{json.dumps(LONG)}',
        json.dumps({key.upper(): value for key, value in LONG.items()}),
        json.dumps(LONG | {"mood": "fine", "nested": {"a": [1]}}),
        json.dumps(LONG)[:-1] + ', "action": "long"}',
    ],
)
def test_a_decision_is_found_wherever_it_stands(text: str):
    assert parse_reply(text) == PARSED


def test_a_decision_inside_the_thinking_counts_when_nothing_follows():
    assert parse_reply(f"<think>{json.dumps(LONG)}</think>Done.") == PARSED


def test_raw_line_breaks_inside_text_are_taken():
    assert parse_reply('{"action": "hold", "reasoning": "a\nb\tc"}').reasoning == "a\nb\tc"


@pytest.mark.parametrize("text", ["long", "Long!", "CLOSE ", "Hold", " sHoRt"])
def test_the_action_may_be_written_in_any_case(text: str):
    if text == "Long!":
        with pytest.raises(InvalidReply):
            parse_reply(reply(action=text))
    else:
        assert parse_reply(reply(action=text)).action == text.strip().lower()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON object"),
        ("I would buy.", "no JSON object"),
        ("{}", "no JSON object"),
        ('{"act', "no JSON object"),
        ('{"reasoning": "no action"}', "no JSON object"),
        ('{"action": "moon"}', '"moon" is not one of long, short, hold, close'),
        ('{"action": "' + "m" * 900 + '"}', "is not one of"),
        ('{"action": null}', "is not one of"),
        ('{"action": ["long"]}', "is not one of"),
        ('{"action": 1}', "is not one of"),
        ('{"action": "long", "ACTION": "short"}', "twice"),
        ('{"action": "long", "order": {"size_pct": 1, "size_pct": 2}}', "twice"),
        ('{"action": "long", "order": [1]}', "the order is not an object but a list"),
        ('{"action": "hold", "reasoning": {"a": 1}}', "reasoning is not text"),
        ('{"action": "hold", "confidence": 101}', "between 0 and 100"),
        ('{"action": "hold", "confidence": -1}', "between 0 and 100"),
        ('{"action": "hold", "confidence": true}', "confidence is not a number"),
        ('{"action": "hold", "confidence": "high"}', "confidence is not a number"),
        ('{"action": "hold", "confidence": NaN}', "not a finite number"),
        ('{"action": "long", "order": {"size_pct": NaN}}', "size_pct is not a finite number"),
        ('{"action": "long", "order": {"leverage": Infinity}}', "leverage is not a finite"),
        ('{"action": "long", "order": {"stop_loss": -Infinity}}', "stop_loss is not a finite"),
        ('{"action": "long", "order": {"stop_loss": 1e999}}', "stop_loss is not a finite"),
        ('{"action": "long", "order": {"stop_loss": 1' + "0" * 400 + "}}", "not a finite"),
        ('{"action": "long", "order": {"stop_loss": 1' + "0" * 9_000 + "}}", "no JSON object"),
        ('{"action": "long", "order": {"stop_loss": true}}', "stop_loss is not a number"),
        ('{"action": "long", "order": {"stop_loss": "2%"}}', "stop_loss is not a number"),
        ('{"action": "long", "order": {"stop_loss": "65,000"}}', "stop_loss is not a number"),
        ('{"action": "long", "order": {"size_pct": "a lot"}}', "size_pct is not a number"),
        ('{"action": "long", "order": {"size_pct": "nan"}}', "size_pct is not a number"),
        ('{"action": "long", "order": {"size_pct": []}}', "size_pct is not a number"),
        ('{"action": "long", "order": {"leverage": "1e999"}}', "leverage is not a finite"),
    ],
)
def test_what_is_no_decision_is_refused_in_a_sentence(text: str, message: str):
    with pytest.raises(InvalidReply, match=message) as caught:
        parse_reply(text)

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text",
    [
        "x" * 5_000_000,
        '{"action": "long", "reasoning": "' + "y" * 5_000_000 + '"}',
        '{"a":' * 150_000,
        '{"action":' * 90_000,
        '[{"a":' * 150_000,
        '{"' * 500_000,
        '{"a": "' + "b" * 1_000_000,
        "{ " * 500_000,
        '{"a": ' + "[" * 900_000,
        "</think>" * 130_000,
        '{"a" : 1} ' * 100_000,
    ],
    ids=lambda text: text[:12],
)
@pytest.mark.timeout(30)  # where time grows with more than the length, it takes for ever
def test_a_hostile_reply_is_refused_quickly(text: str):
    with pytest.raises(InvalidReply):
        parse_reply(text)


# Its values


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (80, 0.8),
        (0.8, 0.8),
        ("80%", 0.8),
        ("80", 0.8),
        (" 80 % ", 0.8),
        ("0.5%", 0.005),
        (100, 1.0),
        (1, 0.01),
        (1.0, 1.0),
        (1.5, 0.015),
        (0, 0.0),
        (None, None),
    ],
    ids=repr,
)
def test_confidence_may_be_a_percentage_or_a_fraction(written: object, read: float | None):
    assert parse_reply(reply(confidence=written)).confidence == pytest.approx(read)


def test_what_is_missing_is_none():
    decision = parse_reply('{"action": "short"}')

    assert decision == Decision(action=Action.SHORT, order=OrderTerms())


@pytest.mark.parametrize("nothing", [None, 0, 0.0, "0", "0%", -0.0], ids=repr)
def test_a_null_or_zero_stop_or_target_is_none(nothing: object):
    terms = order(stop_loss_pct=nothing, take_profit_pct=nothing)

    assert (terms.stop_loss_distance, terms.take_profit_distance) == (None, None)
    assert not terms.has_stop


@pytest.mark.parametrize("nothing", [None, 0, 0.0, "0"], ids=repr)
def test_a_null_or_zero_price_is_none(nothing: object):
    terms = order(stop_loss=nothing, take_profit=nothing)

    assert (terms.stop_loss_price, terms.take_profit_price) == (None, None)


def test_negative_and_wrong_sided_values_are_left_to_the_engine():
    terms = order(size_pct=-5, stop_loss_pct=-1, take_profit_pct="-2%", stop_loss=-7, leverage=-3)

    assert terms == OrderTerms(
        leverage=-3.0,
        size=-0.05,
        stop_loss_distance=-0.01,
        take_profit_distance=-0.02,
        stop_loss_price=-7.0,
    )


def test_a_size_of_zero_is_not_no_size():
    assert order(size_pct=0).size == 0.0
    assert order(size_pct=None).size is None


@pytest.mark.parametrize(
    ("field", "written", "read"),
    [
        ("size_pct", "25%", ("size", 0.25)),
        ("stop_loss_pct", "1.5 %", ("stop_loss_distance", 0.015)),
        ("leverage", "3x", ("leverage", 3.0)),
        ("leverage", "2", ("leverage", 2.0)),
        ("stop_loss", "64250.5", ("stop_loss_price", 64250.5)),
        ("take_profit", ".5", ("take_profit_price", 0.5)),
        ("take_profit", "1e3", ("take_profit_price", 1000.0)),
    ],
)
def test_numbers_may_be_written_as_text(field: str, written: str, read: tuple[str, float]):
    assert getattr(order(**{field: written}), read[0]) == pytest.approx(read[1])


def test_absolute_prices_are_brought_back_from_the_blind_scale():
    text = reply(order={"stop_loss": 95.0, "take_profit": 110, "size_pct": 10})

    terms = parse_reply(text, price_factor=100 / 40_000).order

    assert terms is not None
    assert terms.stop_loss_price == pytest.approx(38_000)
    assert terms.take_profit_price == pytest.approx(44_000)
    assert terms.size == pytest.approx(0.1)


def test_a_price_beyond_floats_is_refused():
    with pytest.raises(InvalidReply):
        parse_reply(reply(order={"stop_loss": 1e308}), price_factor=1e-9)


def test_order_fields_beside_the_action_are_not_lost():
    decision = parse_reply('{"action": "long", "size_pct": 25, "stop_loss_pct": 2}')

    assert decision.order == OrderTerms(size=0.25, stop_loss_distance=0.02)


@pytest.mark.parametrize("action", ["hold", "close"])
def test_an_order_goes_with_long_and_short_only(action: str):
    assert parse_reply(reply(action=action, order="whatever")).order is None


def test_reasoning_is_shortened_and_storable():
    text = '{"action": "hold", "reasoning": "\\u0000a\\ud83d\\ude80\\ud800b ' + "x" * 20_000 + '"}'

    reasoning = parse_reply(text).reasoning

    assert reasoning.startswith("a\N{ROCKET}b x")
    assert len(reasoning) == MAX_REASONING_LENGTH
    reasoning.encode()


# Properties


@given(st.text())
@example("{\ud800}")
@example('{"action": "\ud800"}')
def test_any_text_is_a_decision_or_an_invalid_reply(text: str):
    try:
        assert isinstance(parse_reply(text), Decision)
    except InvalidReply as error:
        str(error).encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["action", "Action", "reasoning", "confidence", "order", "leverage", "size_pct", "stop_loss"]
)
ACTIONS = st.sampled_from(["long", "short", "hold", "close"])


@given(ACTIONS, st.dictionaries(FIELDS, JSON | st.dictionaries(FIELDS, JSON)))
def test_any_json_is_a_decision_or_an_invalid_reply(action: str, fields: dict[str, object]):
    try:
        decision = parse_reply(json.dumps({"action": action} | fields))
    except InvalidReply as error:
        str(error).encode()
    else:
        decision.reasoning.encode()


PERCENTS = st.none() | st.floats(min_value=0.001, max_value=99, allow_subnormal=False)
PRICES = st.none() | st.floats(min_value=0.01, max_value=1e6)


TERMS = st.fixed_dictionaries(
    {
        "leverage": st.none() | st.integers(1, 5),
        "size_pct": PERCENTS,
        "stop_loss_pct": PERCENTS,
        "take_profit_pct": PERCENTS,
        "stop_loss": PRICES,
        "take_profit": PRICES,
    }
)
DECISIONS = st.fixed_dictionaries(
    {
        "reasoning": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        "action": ACTIONS,
        "confidence": st.none() | st.integers(1, 100),
        "order": TERMS,
    }
)
PROSE = st.sampled_from([("", ""), ("So: ", " x"), ("```json\n", "\n```")])


@given(DECISIONS, PROSE)
def test_a_decision_survives_the_way_through_json(fields, prose):
    decision = parse_reply(prose[0] + json.dumps(fields) + prose[1])

    terms = fields["order"]
    expected = OrderTerms(
        leverage=terms["leverage"],
        size=fraction(terms["size_pct"]),
        stop_loss_distance=fraction(terms["stop_loss_pct"]),
        take_profit_distance=fraction(terms["take_profit_pct"]),
        stop_loss_price=terms["stop_loss"],
        take_profit_price=terms["take_profit"],
    )
    assert decision == Decision(
        action=Action(fields["action"]),
        reasoning=fields["reasoning"].strip()[:MAX_REASONING_LENGTH],
        confidence=fraction(fields["confidence"]),
        order=expected if fields["action"] in {"long", "short"} else None,
    )


def fraction(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


# While it streams


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_the_reasoning_grows_while_the_reply_streams(reasoning: str):
    whole = json.dumps({"reasoning": reasoning, "action": "hold"})

    seen = [partial_reasoning(whole[:end]) for end in range(len(whole) + 1)]

    assert seen[0] == ""
    assert seen[-1] == reasoning.strip()
    assert all(later.startswith(sooner) for sooner, later in pairwise(seen))


@pytest.mark.parametrize(
    "text", ["", "prose", '{"reasoning": 1', '{"action": "long"', '{"reasoning']
)
def test_a_reply_without_reasoning_so_far_shows_none(text: str):
    assert partial_reasoning(text) == ""


def test_reasoning_may_come_after_the_action():
    assert partial_reasoning('{"action": "long", "Reasoning" : "It \\"rises\\"\\nnow\\u00e') == (
        'It "rises"\nnow'
    )


# Asking again


def test_the_second_try_shows_the_reply_and_its_error():
    first = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]

    messages = repair_messages(first, "nonsense\x00" * 5_000, InvalidReply("the action is odd"))

    assert messages[:2] == first
    assert [message["role"] for message in messages[2:]] == ["assistant", "user"]
    assert len(messages[2]["content"]) <= 2_000
    assert "the action is odd" in messages[3]["content"]
    assert messages[3] == repair_message(InvalidReply("the action is odd"))


@pytest.mark.parametrize("empty", ["", " \n", "\x00"])
def test_an_empty_reply_is_not_repeated_to_the_model(empty: str):
    messages = repair_messages([], empty, InvalidReply("nothing"))

    assert [message["role"] for message in messages] == ["user"]


# The schema


def test_the_schema_is_of_the_strict_dialect_and_names_every_field_that_is_read():
    order_schema = DECISION_SCHEMA["properties"]["order"]["anyOf"][1]

    for schema in (DECISION_SCHEMA, order_schema):
        assert schema["additionalProperties"] is False
        assert sorted(schema["required"]) == sorted(schema["properties"])
    assert next(iter(DECISION_SCHEMA["properties"])) == "reasoning"
    everything = dict.fromkeys(order_schema["properties"], 7)
    terms = parse_reply(json.dumps({"action": "long", "order": everything})).order
    assert terms == OrderTerms(
        leverage=7.0,
        size=0.07,
        stop_loss_distance=0.07,
        take_profit_distance=0.07,
        stop_loss_price=7.0,
        take_profit_price=7.0,
    )
