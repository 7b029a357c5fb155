"""The local issuer's tokens verify against the keys it serves, and against no others."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest

from local.issuer import Issuer, create_key, issuer_of

ORIGIN = "http://127.0.0.1:9000"


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("issuer") / "issuer.pem"
    create_key(path)
    return path


def _token(key_file: Path, *, issued_at: datetime | None = None) -> str:
    return Issuer.from_file(key_file).token(
        issuer=ORIGIN,
        subject="user_1",
        issued_at=issued_at or datetime.now(UTC),
        lifetime=timedelta(minutes=5),
        claims={"email": "one@example.com"},
    )


def _verified(token: str, key_file: Path) -> dict[str, object]:
    keys = jwt.PyJWKSet.from_dict(Issuer.from_file(key_file).jwks())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    return dict(jwt.decode(token, key, algorithms=["RS256"], issuer=ORIGIN))


def test_the_key_is_readable_by_its_owner_alone(key_file: Path):
    assert key_file.stat().st_mode & 0o777 == 0o600


def test_a_token_verifies_against_the_served_keys(key_file: Path):
    claims = _verified(_token(key_file), key_file)

    assert claims["sub"] == "user_1"
    assert claims["email"] == "one@example.com"
    assert claims["iss"] == ORIGIN
    assert claims["nbf"] == claims["iat"]
    assert int(str(claims["exp"])) - int(str(claims["iat"])) == 300


def test_an_expired_token_is_refused(key_file: Path):
    token = _token(key_file, issued_at=datetime.now(UTC) - timedelta(hours=1))

    with pytest.raises(jwt.ExpiredSignatureError):
        _verified(token, key_file)


def test_a_token_of_another_key_is_refused(key_file: Path, tmp_path: Path):
    other = tmp_path / "other.pem"
    create_key(other)

    with pytest.raises(KeyError):
        _verified(_token(other), key_file)


def test_the_issuer_is_the_origin_of_its_keys():
    assert issuer_of("http://127.0.0.1:9000/.well-known/jwks.json") == ORIGIN
