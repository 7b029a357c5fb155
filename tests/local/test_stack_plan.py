"""What settings name is used; the rest is embedded."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from certificates.signing import SigningKey, new_seed
from local.data_directory import DataDirectory
from local.doctor import examine_certificate_keys
from local.stack import Ports, StackPlan
from settings import OPENROUTER_URL, ApiSettings, WorkerSettings, load
from tests.issuing import KEY

EXTERNAL = {
    "MARKET_DATA_SOURCE": "ccxt:binance",
    "DATABASE_URL": "postgresql://db/alphalab",
    "REDIS_URL": "redis://cache",
    "TEMPORAL_ADDRESS": "temporal:7233",
    "OPENROUTER_BASE_URL": "http://127.0.0.1:9000/api/v1",
    "CLERK_JWKS_URL": "https://clerk.example/.well-known/jwks.json",
}


@pytest.fixture
def ports() -> Iterator[Ports]:
    chosen = Ports.choose({}, api=None)
    yield chosen
    chosen.close()


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory(tmp_path / "d")
    directory.create()
    directory.create_keys()
    return directory


def _names(plan: StackPlan) -> list[str]:
    return [service.name for service in plan.servers]


def test_without_settings_everything_is_embedded(directory: DataDirectory, ports: Ports):
    plan = StackPlan(directory, ports, {})

    assert _names(plan) == ["postgres", "redis", "temporal", "simulators"]
    assert plan.settings["ENVIRONMENT"] == "development"
    assert (
        plan.settings["OPENROUTER_BASE_URL"]
        == f"http://127.0.0.1:{ports.to_record()['simulators']}/api/v1"
    )
    assert plan.settings["ENCRYPTION_KEY"] == directory.encryption_key
    assert plan.settings["LINK_SIGNING_KEY"] == directory.link_signing_key
    assert plan.settings["CERTIFICATE_SIGNING_KEY"] == directory.certificate_signing_key
    key = directory.certificate_public_key
    assert key is not None
    assert plan.settings["CERTIFICATE_PUBLIC_KEYS"] == key.base64
    assert plan.settings["STORAGE_BUCKET"] == str(directory.path / "storage")


def test_with_every_server_named_none_is_embedded(directory: DataDirectory, ports: Ports):
    plan = StackPlan(directory, ports, {**EXTERNAL, "ENVIRONMENT": "production"})

    assert _names(plan) == []
    assert EXTERNAL.items() <= plan.settings.items()
    assert plan.settings["ENVIRONMENT"] == "development"


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("DATABASE_URL", "postgres"),
        ("REDIS_URL", "redis"),
        ("TEMPORAL_ADDRESS", "temporal"),
    ],
)
def test_a_named_server_takes_the_place_of_its_embedded_one(
    directory: DataDirectory, ports: Ports, name: str, missing: str
):
    plan = StackPlan(directory, ports, {name: EXTERNAL[name]})

    assert missing not in _names(plan)
    assert len(plan.servers) == 3
    assert plan.settings[name] == EXTERNAL[name]


def test_a_key_of_openrouter_means_openrouter_itself(directory: DataDirectory, ports: Ports):
    plan = StackPlan(directory, ports, {"OPENROUTER_API_KEY": "sk-or-v1-0"})

    assert plan.settings["OPENROUTER_BASE_URL"] == OPENROUTER_URL
    assert "simulators" in _names(plan)  # the token issuer is still needed


def test_the_processes_get_all_that_they_need(directory: DataDirectory, ports: Ports):
    settings = {
        name.lower(): value for name, value in StackPlan(directory, ports, {}).settings.items()
    }

    assert load(ApiSettings, **settings).port == ports.to_record()["api"]
    assert load(WorkerSettings, **settings).is_development


def test_the_keys_stay_the_same(directory: DataDirectory):
    def keys() -> tuple[object, ...]:
        issuer_key = directory.issuer_key_file.read_bytes()
        seed = directory.certificate_signing_key
        return directory.encryption_key, directory.link_signing_key, seed, issuer_key

    former = keys()
    directory.create_keys()

    assert keys() == former


def test_a_port_is_held_from_the_moment_it_is_chosen(ports: Ports):
    """Two stacks that start together would otherwise choose one port, and trust one API."""
    others = Ports.choose(ports.to_record(), api=None)
    try:
        taken, found = ports.to_record(), others.to_record()
        assert found["api"] != taken["api"]
        assert found["simulators"] != taken["simulators"]
    finally:
        others.close()


@pytest.mark.parametrize(
    ("settings", "is_well", "word"),
    [
        ({}, True, "signs"),
        ({"CERTIFICATE_PUBLIC_KEYS": KEY.public_key.base64}, False, "does not verify"),
        ({"CERTIFICATE_SIGNING_KEY": "x"}, False, "seed of 32 bytes"),
    ],
)
def test_the_doctor_finds_keys_of_certificates_that_do_not_fit(
    directory: DataDirectory, settings: dict[str, str], *, is_well: bool, word: str
):
    found = examine_certificate_keys(settings, directory)
    assert (found.is_well, word in found.detail) == (is_well, True)


def test_a_signing_key_that_is_given_brings_its_public_key(directory: DataDirectory, ports: Ports):
    seed = new_seed()
    plan = StackPlan(directory, ports, {"CERTIFICATE_SIGNING_KEY": seed})
    public = SigningKey.from_seed(seed).public_key
    assert plan.settings["CERTIFICATE_PUBLIC_KEYS"] == public.base64
    assert examine_certificate_keys(plan.settings, directory).is_well
