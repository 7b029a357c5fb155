"""Sealed payloads: what Temporal stores opens with the right key only."""

import base64
import os

import pytest
from temporalio.api.common.v1 import Payload

from tests.conftest import TEMPORAL_NAMESPACE
from tests.laboratory import Laboratory, Plan
from tests.workflows.histories import payloads_of
from workflows.backtest import BacktestWorkflow
from workflows.payload_codec import AesGcmCodec, InvalidPayloadKeys
from workflows.runtime import connect, workflow_id

PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'{"equity": 10000.0}')


def key(name: str) -> str:
    return f"{name}:{base64.b64encode(os.urandom(32)).decode()}"


async def test_what_is_sealed_opens_to_what_it_was():
    codec = AesGcmCodec.from_setting(key("now"))

    (sealed,) = await codec.encode([PLAIN])

    assert await codec.decode([sealed]) == [PLAIN]
    assert b"equity" not in sealed.SerializeToString()
    assert sealed.metadata["encoding"] == b"binary/encrypted"
    assert sealed.metadata["key-id"] == b"now"


async def test_the_same_payload_is_never_sealed_the_same_way():
    codec = AesGcmCodec.from_setting(key("now"))

    sealed = await codec.encode([PLAIN] * 20)

    assert len({payload.data for payload in sealed}) == 20


async def test_a_rotated_key_still_opens_what_it_sealed():
    old, new = key("2025"), key("2026")
    (sealed_then,) = await AesGcmCodec.from_setting(old).encode([PLAIN])

    rotated = AesGcmCodec.from_setting(f"{new}, {old}")
    (sealed_now,) = await rotated.encode([PLAIN])

    assert sealed_now.metadata["key-id"] == b"2026"
    assert await rotated.decode([sealed_then, sealed_now]) == [PLAIN, PLAIN]
    with pytest.raises(InvalidPayloadKeys, match="2025"):
        await AesGcmCodec.from_setting(new).decode([sealed_then])


async def test_another_key_of_the_same_name_opens_nothing():
    (sealed,) = await AesGcmCodec.from_setting(key("now")).encode([PLAIN])

    with pytest.raises(InvalidPayloadKeys, match="does not open"):
        await AesGcmCodec.from_setting(key("now")).decode([sealed])


async def test_a_payload_that_was_touched_does_not_open():
    codec = AesGcmCodec.from_setting(key("now"))
    (sealed,) = await codec.encode([PLAIN])
    sealed.data = sealed.data[:-1] + bytes([sealed.data[-1] ^ 1])

    with pytest.raises(InvalidPayloadKeys):
        await codec.decode([sealed])


async def test_a_key_cannot_be_passed_off_as_another():
    """The key's name is sealed with the payload."""
    one = key("one")
    other = one.replace("one:", "other:")
    codec = AesGcmCodec.from_setting(f"{one},{other}")
    (sealed,) = await codec.encode([PLAIN])
    sealed.metadata["key-id"] = b"other"

    with pytest.raises(InvalidPayloadKeys):
        await codec.decode([sealed])


async def test_what_was_never_sealed_passes_through():
    assert await AesGcmCodec.from_setting(key("now")).decode([PLAIN]) == [PLAIN]


@pytest.mark.parametrize(
    "setting",
    ["", " , ", "now", "now:", ":AAAA", "now:not base64!", "now:c2hvcnQ="],
)
def test_keys_that_are_none_are_refused_without_repeating_them(setting: str):
    with pytest.raises(InvalidPayloadKeys) as refusal:
        AesGcmCodec.from_setting(setting)
    assert "c2hvcnQ" not in str(refusal.value)


async def test_a_sealed_history_holds_no_plain_text(laboratory: Laboratory, temporal_address: str):
    """The fault makes failures of it, whose messages and traces are sealed as well."""
    keys = key("now")
    laboratory.client = await connect(
        temporal_address, namespace=TEMPORAL_NAMESPACE, payload_keys=keys
    )
    plan = Plan(candles=2, model="simulated/flip:402-first")
    async with laboratory.worker():
        session_id = await laboratory.started(plan)
        await laboratory.paused(session_id)
        await laboratory.temporal.signal_resume(session_id, "a-resume")
        await laboratory.ended(session_id)
        progress = await laboratory.temporal.progress(session_id)
        stranger = await connect(temporal_address, namespace=TEMPORAL_NAMESPACE)
        with pytest.raises(KeyError, match="binary/encrypted"):
            await stranger.get_workflow_handle_for(
                BacktestWorkflow.run, workflow_id(session_id)
            ).query(BacktestWorkflow.progress)

    handle = stranger.get_workflow_handle(workflow_id(session_id))
    history = (await handle.fetch_history()).to_json()
    sealed = b"".join(payloads_of(history))
    assert progress is not None
    assert (progress.current_candle, progress.total_candles) == (2, 2)
    assert (await laboratory.session_row(session_id))["status"] == "completed"
    for word in ("starting_capital", "equity", "next_candle", "candle 0: step", "402", "Insuff"):
        assert word.encode() not in sealed
    for word in (
        "OpenRouter",
        "no credits",
        "request_decision\\n",
        "candle 0: step",
        "failures.py",
    ):
        assert word not in history
