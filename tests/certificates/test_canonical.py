"""The canonical document: RFC 8785, whatever passes through a database, and nothing else."""

import asyncio
import json
from dataclasses import replace

import pytest

from certificates.canonical import Document, NotCanonical, canonical_json
from certificates.signing import InvalidKey, PublicKey, SigningKey, new_seed
from tests.certificates.samples import backtest, composed
from tests.issuing import KEY

DOCUMENT = asyncio.run(composed(backtest()))


def test_the_example_of_rfc_8785_comes_out_as_there():
    numbers = [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001]
    value = {"numbers": numbers, "string": '€$\u000f\nA\'B"\\"/', "literals": [None, True, False]}
    assert canonical_json(value).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\"/"}'
    )


def test_a_document_is_read_as_it_was_written():
    assert Document.from_bytes(DOCUMENT.to_bytes()) == DOCUMENT


def test_a_number_too_large_for_an_integer_is_the_same_float_after_a_database_had_it():
    growth = 7.123456789012345e37
    document = replace(DOCUMENT, metrics=replace(DOCUMENT.metrics, cagr=growth))
    stored = json.loads(json.dumps(document.to_json()))
    stored["metrics"]["cagr"] = int(growth)  # as JSONB gives it back
    assert canonical_json(stored) == document.to_bytes()


def test_what_is_computed_has_eight_decimals_and_the_rules_have_all():
    values = [*DOCUMENT.to_json()["metrics"].values(), *DOCUMENT.to_json()["result"].values()]
    floats = [value for value in values if isinstance(value, float)]
    assert len(floats) > 20
    assert all(value == round(value, 8) for value in floats)
    third = replace(DOCUMENT, rules=replace(DOCUMENT.rules, max_daily_loss=1 / 3))
    assert Document.from_bytes(third.to_bytes()).rules.max_daily_loss == 1 / 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", object()])
def test_what_has_no_canonical_form_is_refused(value: object):
    with pytest.raises(NotCanonical):
        canonical_json({"value": value})


def test_bytes_in_another_form_are_no_document():
    for content in (
        json.dumps(DOCUMENT.to_json()).encode(),
        DOCUMENT.to_bytes() + b" ",
        DOCUMENT.to_bytes().replace(b'"trials":4', b'"trials":4.0'),
        b"{}",
        b"",
    ):
        with pytest.raises(NotCanonical):
            Document.from_bytes(content)


def test_a_key_is_read_as_base64_and_as_pem_and_shown_by_nothing():
    seed = new_seed()
    key = SigningKey.from_seed(seed)
    assert PublicKey.parse(key.public_key.base64) == PublicKey.parse(key.public_key.pem)
    assert SigningKey.from_seed(seed).public_key == key.public_key
    assert seed not in repr(key)
    assert key.public_key.verifies(key.sign(b"content"), b"content")
    assert not key.public_key.verifies(key.sign(b"content"), b"contents")
    assert not KEY.public_key.verifies(key.sign(b"content"), b"content")


def test_another_spelling_of_a_signature_is_none():
    signature = KEY.sign(b"content")
    last = signature[85]
    respelt = signature[:85] + chr(ord(last) + 1) + "=="
    assert not KEY.public_key.verifies(respelt, b"content")


@pytest.mark.parametrize("text", ["", "x", "AAAA", "-----BEGIN PUBLIC KEY-----\nAAAA\n", "ä" * 44])
def test_what_is_no_key_is_refused_without_repeating_it(text: str):
    for parse in (PublicKey.parse, SigningKey.from_seed):
        with pytest.raises(InvalidKey) as refused:
            parse(text)
        assert len(text) < 5 or text not in str(refused.value)
