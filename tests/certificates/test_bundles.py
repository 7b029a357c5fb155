"""A bundle verifies from itself and a key, and whatever was changed in it is found and named."""

import io
from dataclasses import replace

import pytest
from hypothesis import given, settings

from certificates.bundle import SignedDocument, TraceChanged, bundle
from certificates.signing import SigningKey, new_seed
from certificates.verification import Verification, verify_bundle
from tests.certificates.samples import (
    backtest,
    bundled,
    composed,
    decided,
    files_of,
    forward_test,
    joined,
    material_of,
    paged,
)
from tests.issuing import KEY
from tests.trading.scenarios import Scenario, scenarios
from tests.trading.test_parity import recorded
from trading.decisions import Action
from trading.orders import ExitType
from trading.parity import Recording


def verified(content: bytes) -> Verification:
    return verify_bundle(io.BytesIO(content), [KEY.public_key])


@pytest.mark.parametrize("recording", [backtest(), forward_test()], ids=["backtest", "forward"])
@pytest.mark.parametrize("includes_reasoning", [False, True])
def test_a_bundle_verifies(recording: Recording, includes_reasoning: bool):
    found = verified(bundled(recording, includes_reasoning=includes_reasoning))
    assert found.problems == ()
    assert found.document is not None
    assert found.document.result.trades == len(recording.trades) > 2
    assert ("reasoning" in found.looked_at) is includes_reasoning


@settings(max_examples=25)
@given(scenario=scenarios())
def test_a_bundle_of_any_recording_verifies(scenario: Scenario):
    for ending in (ExitType.END_OF_TEST, None):
        recording = recorded(scenario.series, scenario.decisions, scenario.rules, ending=ending)
        assert verified(bundled(recording)).problems == ()


def test_words_are_in_a_bundle_only_where_they_are_to_be():
    silent, told = bundled(backtest()), bundled(backtest(), includes_reasoning=True)
    assert b"steigt" not in b"".join(files_of(silent).values())
    assert b"steigt" in files_of(told)["reasoning.jsonl"]


def test_a_bundle_has_the_same_bytes_whenever_it_is_written():
    assert bundled(backtest()) == bundled(backtest())


def test_another_key_than_the_issuers_is_named():
    other = SigningKey.from_seed(new_seed())
    found = verified(bundled(backtest(), key=other))
    (problem,) = found.problems
    assert (problem.part, problem.field) == ("signature", "public_key_id")
    assert (found.outcome, found.is_genuine, found.is_signed) == ("unknown_key", False, False)


def test_an_old_key_still_verifies_after_a_rotation():
    old = SigningKey.from_seed(new_seed())
    content = io.BytesIO(bundled(backtest(), key=old))
    assert verify_bundle(content, [KEY.public_key, old.public_key]).is_genuine


async def test_nothing_is_written_of_what_has_changed_since_it_was_composed():
    recording = backtest()
    signed = SignedDocument.sign(await composed(recording), KEY)
    first, *others = decided(recording)
    changed = replace(first, record=replace(first.record, action=Action.SHORT))
    material = replace(material_of(recording), decisions=paged([changed, *others]))
    with pytest.raises(TraceChanged):
        await joined(bundle(signed, material))
