"""What a stranger needs to check signature and chain: hashlib, json and an Ed25519 library."""

import base64
import csv
import hashlib
import io
import json
import zipfile

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from tests.certificates.samples import backtest, bundled, forward_test
from tests.issuing import KEY

BUNDLES = {"backtest": bundled(backtest()), "forward": bundled(forward_test())}


def check_by_hand(bundle: bytes, public_key_pem: str) -> None:
    """Steps 1 and 2 of the bundle's own README, and nothing of ours."""
    archive = zipfile.ZipFile(io.BytesIO(bundle))
    content = archive.read("certificate.json")
    certificate = json.loads(content)
    document = content[len(b'{"canonical":') : content.rindex(b',"canonical_sha256":')]
    assert json.loads(document) == certificate["canonical"]
    assert hashlib.sha256(document).hexdigest() == certificate["canonical_sha256"]
    key = load_pem_public_key(public_key_pem.encode())
    key.verify(base64.b64decode(certificate["signature"]), document)  # type: ignore[call-arg, union-attr]

    link = hashlib.sha256(b"alphalab-certificate/1 trace\n").digest()
    heads = certificate["canonical"]["trace"]
    for name in ("candles.csv", "decisions.jsonl", "sightings.jsonl", "trades.jsonl"):
        lines = archive.read(name).splitlines()
        if name == "candles.csv":
            header, *lines = lines
            assert next(csv.reader([header.decode()]))[-1] == "link"
        for line in lines:
            if name == "candles.csv":
                record, _, stated = line.rpartition(b",")
            else:
                stated, record = line[9:73], line[84:-1]
                assert json.loads(record) == json.loads(line)["record"]
            link = hashlib.sha256(link + record).digest()
            assert link.hex() == stated.decode()
        part = name.partition(".")[0]
        assert heads[part] == {"lines": len(lines), "sha256": link.hex()}


@pytest.mark.parametrize("test", BUNDLES)
def test_a_stranger_verifies_signature_and_chain_by_hand(test: str):
    check_by_hand(BUNDLES[test], KEY.public_key.pem)


def test_a_strangers_check_can_fail():
    forged = io.BytesIO(BUNDLES["backtest"])
    with zipfile.ZipFile(forged) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["certificate.json"] = files["certificate.json"].replace(b'"trials":4', b'"trials":1')
    with zipfile.ZipFile(forged, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(AssertionError):
        check_by_hand(forged.getvalue(), KEY.public_key.pem)
    another = Ed25519PrivateKey.generate().public_key()
    pem = another.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with pytest.raises(InvalidSignature):
        check_by_hand(BUNDLES["backtest"], pem)
