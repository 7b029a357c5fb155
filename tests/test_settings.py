"""Settings come from the environment, are named when missing, and never show a secret."""

import base64
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from certificates.signing import SigningKey, new_seed
from settings import (
    ApiSettings,
    InvalidSettings,
    MissingSettings,
    WorkerSettings,
    api_settings,
    usable,
    worker_settings,
)

NEEDED_BY_BOTH = {
    "DATABASE_URL": "postgresql://localhost/alphalab",
    "REDIS_URL": "redis://localhost",
    "TEMPORAL_ADDRESS": "localhost:7233",
    "ENCRYPTION_KEY": Fernet.generate_key().decode(),
    "PUBLIC_URL": "https://alphalab.example/",
    "STORAGE_BUCKET": "s3://alphalab/files",
}
SEED = new_seed()
NEEDED_BY_THE_WORKER = {**NEEDED_BY_BOTH, "CERTIFICATE_SIGNING_KEY": SEED}
NEEDED_BY_THE_API = {
    **NEEDED_BY_BOTH,
    "CERTIFICATE_PUBLIC_KEYS": SigningKey.from_seed(SEED).public_key.base64,
    "CLERK_JWKS_URL": "https://clerk.example/.well-known/jwks.json",
    "LINK_SIGNING_KEY": "k" * 32,
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # no .env
    for kind in (ApiSettings, WorkerSettings):
        for name in kind.model_fields:
            monkeypatch.delenv(name.upper(), raising=False)


def _set(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_the_api_names_everything_it_lacks():
    with pytest.raises(MissingSettings) as caught:
        api_settings()

    assert caught.value.names == tuple(sorted(NEEDED_BY_THE_API))
    assert "DATABASE_URL" in str(caught.value)


def test_the_worker_names_everything_it_lacks():
    with pytest.raises(MissingSettings) as caught:
        worker_settings()

    assert caught.value.names == tuple(sorted(NEEDED_BY_THE_WORKER))


def test_debug_logs_everything_whatever_level_is_set(monkeypatch: pytest.MonkeyPatch):
    _set(monkeypatch, NEEDED_BY_THE_API | NEEDED_BY_THE_WORKER | {"LOG_LEVEL": "error"})
    assert api_settings().level == worker_settings().level == "error"

    _set(monkeypatch, {"DEBUG": "true"})
    assert api_settings().level == worker_settings().level == "debug"


@pytest.mark.parametrize("name", NEEDED_BY_THE_API)
def test_an_empty_setting_is_a_missing_one(monkeypatch: pytest.MonkeyPatch, name: str):
    _set(monkeypatch, {**NEEDED_BY_THE_API, name: ""})

    with pytest.raises(MissingSettings) as caught:
        api_settings()

    assert caught.value.names == (name,)


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch):
    _set(monkeypatch, {**NEEDED_BY_THE_API, "CORS_ORIGINS": "https://a.example, https://b.example"})

    assert api_settings().cors_origins == ("https://a.example", "https://b.example")


def test_several_encryption_keys_rotate(monkeypatch: pytest.MonkeyPatch):
    new, old = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    _set(monkeypatch, {**NEEDED_BY_THE_WORKER, "ENCRYPTION_KEY": f"{new}, {old}"})

    assert worker_settings().encryption_keys == (new, old)


def test_several_keys_of_links_rotate(monkeypatch: pytest.MonkeyPatch):
    _set(monkeypatch, {**NEEDED_BY_THE_API, "LINK_SIGNING_KEY": f"{'n' * 32}, {'o' * 40}"})

    settings = api_settings()

    assert settings.link_signing_keys == ("n" * 32, "o" * 40)
    assert "n" * 32 not in repr(settings)


@pytest.mark.parametrize("seed", ["hunter2", "aHVudGVyMg==", "ä" * 44])
def test_a_seed_that_cannot_sign_is_named_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, seed: str
):
    _set(monkeypatch, {**NEEDED_BY_THE_WORKER, "CERTIFICATE_SIGNING_KEY": seed})

    with pytest.raises(InvalidSettings, match="CERTIFICATE_SIGNING_KEY") as caught:
        worker_settings()

    assert seed not in str(caught.value)


def test_the_seed_of_certificates_does_not_show(monkeypatch: pytest.MonkeyPatch):
    _set(monkeypatch, NEEDED_BY_THE_WORKER)

    assert SEED not in repr(worker_settings())


def test_an_unusable_value_is_named_and_not_repeated(monkeypatch: pytest.MonkeyPatch):
    _set(monkeypatch, {**NEEDED_BY_THE_WORKER, "ENCRYPTION_KEY": "my-secret-key"})

    with pytest.raises(InvalidSettings) as caught:
        worker_settings()

    assert "ENCRYPTION_KEY" in str(caught.value)
    assert "my-secret-key" not in str(caught.value)


@pytest.mark.parametrize("secret", ["whsec_", "hunter2", "whsec_c2hvcnQ=", "whsec_no base64!"])
def test_a_webhook_secret_that_anybody_could_sign_with_is_refused(
    monkeypatch: pytest.MonkeyPatch, secret: str
):
    _set(monkeypatch, {**NEEDED_BY_THE_API, "CLERK_WEBHOOK_SECRET": secret})

    with pytest.raises(InvalidSettings, match=r"CLERK_WEBHOOK_SECRET: .*signing secret") as caught:
        api_settings()

    assert secret.removeprefix("whsec_") == "" or secret not in str(caught.value)


def test_a_webhook_secret_is_taken_as_the_dashboard_shows_it(monkeypatch: pytest.MonkeyPatch):
    secret = "whsec_" + base64.b64encode(b"x" * 24).decode()
    _set(monkeypatch, {**NEEDED_BY_THE_API, "CLERK_WEBHOOK_SECRET": secret})

    settings = api_settings()

    assert settings.clerk_webhook_secret is not None
    assert settings.clerk_webhook_secret.get_secret_value() == secret
    assert secret not in repr(settings)


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch):
    _set(monkeypatch, {**NEEDED_BY_THE_API, "DATABASE_URL": "postgresql://me:hunter2@db/alphalab"})

    assert "hunter2" not in repr(api_settings())


def test_only_development_lifts_the_limit_of_active_tests(monkeypatch: pytest.MonkeyPatch):
    _set(monkeypatch, NEEDED_BY_THE_API)
    assert api_settings().active_test_limits == {"free": 3, "pro": 20, "enterprise": 200}

    monkeypatch.setenv("ENVIRONMENT", "development")
    assert api_settings().active_test_limits is None


MAIL = {"SMTP_HOST": "smtp.example", "SMTP_FROM": "AlphaLab <no-reply@alphalab.example>"}
LOGIN = {"SMTP_USERNAME": "alphalab", "SMTP_PASSWORD": "hunter2"}


def test_mail_is_off_without_a_host_and_encrypted_with_one(monkeypatch: pytest.MonkeyPatch):
    _set(monkeypatch, NEEDED_BY_THE_WORKER)
    assert worker_settings().smtp_host is None

    _set(monkeypatch, MAIL | LOGIN)
    settings = worker_settings()
    assert (settings.smtp_port, settings.smtp_tls) == (587, "starttls")
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"SMTP_HOST": "smtp.example"}, "SMTP_FROM"),
        (MAIL | {"SMTP_FROM": "nobody"}, "SMTP_FROM"),
        (MAIL | {"SMTP_FROM": "a@b.example, c@d.example"}, "SMTP_FROM"),
        (MAIL | {"SMTP_USERNAME": "alphalab"}, "SMTP_PASSWORD"),
        (MAIL | {"SMTP_PASSWORD": "hunter2"}, "SMTP_PASSWORD"),
        (MAIL | LOGIN | {"SMTP_TLS": "none"}, "SMTP_PASSWORD"),
        (MAIL | {"SMTP_TLS": "perhaps"}, "SMTP_TLS"),
        (MAIL | {"SMTP_PORT": "0"}, "SMTP_PORT"),
    ],
)
def test_mail_settings_that_do_not_fit_are_named(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], named: str
):
    _set(monkeypatch, NEEDED_BY_THE_WORKER | given)

    with pytest.raises(InvalidSettings) as caught:
        worker_settings()

    assert set(caught.value.problems) == {named}
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("TRUSTED_PROXIES", "10.0.0.1, *", "must be IP addresses or networks"),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "must be IP addresses or networks"),
        ("TRUSTED_PROXIES", "proxy.example", "must be IP addresses or networks"),
        ("METRICS_TOKEN", "hunter2", "must have at least 16 characters"),
        ("LINK_SIGNING_KEY", "hunter2", "secrets of at least 32 characters"),
        ("LINK_SIGNING_KEY", f"{'k' * 32},hunter2", "secrets of at least 32 characters"),
        ("CERTIFICATE_PUBLIC_KEYS", "hunter2", "base64 of 32 bytes"),
        ("CERTIFICATE_PUBLIC_KEYS", ",", "must be public keys"),
        ("STORAGE_BUCKET", "hunter2://bucket", "must be /a/folder"),
        ("RATE_LIMIT_PER_MINUTE", "0", "greater than or equal to 1"),
        ("TEST_STARTS_PER_MINUTE", "-1", "greater than or equal to 1"),
    ],
)
def test_limits_that_cannot_be_kept_are_named(
    monkeypatch: pytest.MonkeyPatch, name: str, given: str, sentence: str
):
    _set(monkeypatch, {**NEEDED_BY_THE_API, name: given})

    with pytest.raises(InvalidSettings, match=sentence) as caught:
        api_settings()

    assert set(caught.value.problems) == {name}
    assert "hunter2" not in str(caught.value)


def test_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch):
    _set(monkeypatch, {**NEEDED_BY_THE_API, "TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::1"})

    assert api_settings().trusted_proxies == ("10.0.0.0/8", "2001:db8::1")


@pytest.mark.parametrize("given", ["9464", "localhost:9464", "0.0.0.0", "0.0.0.0:99999", "::1:80"])
def test_a_worker_says_where_its_metrics_cannot_be(monkeypatch: pytest.MonkeyPatch, given: str):
    _set(monkeypatch, {**NEEDED_BY_THE_WORKER, "WORKER_METRICS_ADDRESS": given})

    with pytest.raises(InvalidSettings, match="an IP address and a port") as caught:
        worker_settings()

    assert set(caught.value.problems) == {"WORKER_METRICS_ADDRESS"}


@pytest.mark.parametrize("given", ["0.0.0.0:9464", "[::1]:80"])
def test_a_workers_metrics_have_an_address(monkeypatch: pytest.MonkeyPatch, given: str):
    _set(monkeypatch, {**NEEDED_BY_THE_WORKER, "WORKER_METRICS_ADDRESS": given})

    assert worker_settings().worker_metrics_address == given


def test_a_setting_that_is_found_bad_when_it_is_used_is_named():
    with pytest.raises(InvalidSettings) as caught, usable("STORAGE_BUCKET"):
        raise ValueError("the folder cannot be made")

    assert caught.value.problems == {"STORAGE_BUCKET": "the folder cannot be made"}
