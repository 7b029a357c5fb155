"""The codec server: sealed payloads open for the Web UI, and for no other page."""

import base64
import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from temporalio.api.common.v1 import Payload, Payloads

from local.codec_server import create_app
from tests.loopback import serve_app
from workflows.payload_codec import AesGcmCodec

UI = "http://127.0.0.1:8080"
PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'{"equity": 10000.0}')


@pytest.fixture(scope="module")
def codec() -> AesGcmCodec:
    return AesGcmCodec.from_setting(f"now:{base64.b64encode(os.urandom(32)).decode()}")


@pytest.fixture(scope="module")
def url(codec: AesGcmCodec) -> Iterator[str]:
    with serve_app(create_app(codec, origins=[UI])) as address:
        yield address


def as_json(*payloads: Payload) -> dict[str, Any]:
    return MessageToDict(Payloads(payloads=payloads))


async def test_what_the_codec_sealed_is_opened(codec: AesGcmCodec, url: str):
    sealed = await codec.encode([PLAIN])

    opened = httpx.post(f"{url}/decode", json=as_json(*sealed))

    assert opened.json() == as_json(PLAIN)


async def test_what_an_operator_sends_is_sealed(codec: AesGcmCodec, url: str):
    sealed = httpx.post(f"{url}/encode", json=as_json(PLAIN)).json()

    assert sealed != as_json(PLAIN)
    assert httpx.post(f"{url}/decode", json=sealed).json() == as_json(PLAIN)


def test_only_the_pages_of_the_web_ui_may_ask(url: str):
    def asked_by(origin: str) -> httpx.Response:
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,x-namespace",
        }
        return httpx.options(f"{url}/decode", headers=headers)

    assert asked_by(UI).headers["access-control-allow-origin"] == UI
    assert "access-control-allow-origin" not in asked_by("https://elsewhere.example").headers


def test_another_name_for_this_machine_is_not_served(url: str):
    refused = httpx.post(f"{url}/decode", json={}, headers={"Host": "elsewhere.example"})

    assert refused.status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"no JSON",
        b"\xff",
        b'{"payloads": 1}',
        json.dumps(as_json(Payload(metadata={"encoding": b"binary/encrypted"}))).encode(),
        json.dumps(
            as_json(Payload(metadata={"encoding": b"binary/encrypted", "key-id": b"other"}))
        ).encode(),
        b" " * (17 * 1024 * 1024),
    ],
    ids=["text", "no-text", "shape", "no-key", "another-key", "too-long"],
)
def test_what_cannot_be_opened_is_refused_in_one_sentence(url: str, body: bytes):
    refused = httpx.post(f"{url}/decode", content=body)

    assert refused.status_code == 400
    assert len(refused.text) < 300
    assert "Traceback" not in refused.text
