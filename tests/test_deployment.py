"""What production starts from: as far as that can be checked without a container engine."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from cryptography.fernet import Fernet

from certificates.signing import SigningKey, new_seed
from local.servers import TEMPORAL_DYNAMIC_CONFIG, PostgresServer, postgres_binary
from local.services import PROJECT_ROOT
from migrations.run import upgrade
from settings import ApiSettings, MigrationSettings, StackSettings, WorkerSettings

COMPOSE_TEXT = (PROJECT_ROOT / "docker-compose.yml").read_text()
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?::(?P<kind>[?-])(?P<word>[^}]*))?\}")
OURS: dict[str, type[ApiSettings | WorkerSettings | MigrationSettings]] = {
    "api": ApiSettings,
    "worker": WorkerSettings,
    "migrate": MigrationSettings,
}
SETTING_NAMES = {name.upper() for kind in OURS.values() for name in kind.model_fields}
SEED = new_seed()
GIVEN = {
    "ALPHALAB_DATABASE_PASSWORD": "alphalabpassword",
    "CLERK_JWKS_URL": "https://clerk.example/.well-known/jwks.json",
    "ENCRYPTION_KEY": Fernet.generate_key().decode(),
    "CERTIFICATE_PUBLIC_KEYS": SigningKey.from_seed(SEED).public_key.base64,
    "CERTIFICATE_SIGNING_KEY": SEED,
    "LINK_SIGNING_KEY": "k" * 32,
    "POSTGRES_PASSWORD": "postgrespassword",
    "PUBLIC_URL": "https://alphalab.example",
    "REDIS_PASSWORD": "redispassword",
    "TEMPORAL_DATABASE_PASSWORD": "temporalpassword",
}


def _interpolated(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _interpolated(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_interpolated(item) for item in value]
    if isinstance(value, str):
        return VARIABLE.sub(lambda found: GIVEN.get(found["name"], found["word"]), value)
    return value


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(_interpolated(yaml.safe_load(COMPOSE_TEXT)))


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return dict(compose["services"])


def _environment(service: dict[str, Any]) -> dict[str, str]:
    """What a service is given; without a value stands what it gets where the host has it."""
    return {name: value for name, value in service["environment"].items() if value is not None}


@pytest.mark.parametrize("name", OURS)
def test_each_process_starts_with_the_settings_it_gets(
    services: dict[str, dict[str, Any]],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.chdir(tmp_path)
    for setting in SETTING_NAMES:
        monkeypatch.delenv(setting, raising=False)
    for setting, value in _environment(services[name]).items():
        assert isinstance(value, str)
        monkeypatch.setenv(setting, value)

    settings = OURS[name]()

    assert "alphalabpassword" in settings.database_url.get_secret_value()
    assert getattr(settings, "environment", "production") == "production"


def test_no_process_gets_a_setting_that_nobody_reads(services: dict[str, dict[str, Any]]):
    unread = {
        name: _environment(services[name]).keys() - {field.upper() for field in kind.model_fields}
        for name, kind in (("api", ApiSettings), ("worker", WorkerSettings))
    }
    assert unread == {"api": set(), "worker": set()}


def test_every_variable_has_a_default_or_must_be_given():
    found = [match.groupdict() for match in VARIABLE.finditer(COMPOSE_TEXT)]

    secret = re.compile("PASSWORD|SECRET|KEY")
    assert {variable["name"] for variable in found if variable["kind"] == "?"} == set(GIVEN)
    assert [variable for variable in found if variable["kind"] is None] == []
    assert [
        variable
        for variable in found
        if secret.search(variable["name"]) and variable["kind"] == "-" and variable["word"]
    ] == []


@pytest.mark.parametrize("name", ["api", "worker"])
def test_what_s3_is_said_to_need_is_handed_on(services: dict[str, dict[str, Any]], name: str):
    handed_on = {key for key in services[name]["environment"] if key.startswith("AWS_")}

    for document in (".env.example", "docs/operations.md"):
        text = (PROJECT_ROOT / document).read_text()
        assert set(re.findall(r"AWS_[A-Z_]*[A-Z]", text)) == handed_on


def test_nothing_but_the_api_is_published_beyond_this_host(services: dict[str, dict[str, Any]]):
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}

    assert published.keys() == {"api", "temporal-ui"}
    assert [port.startswith("127.0.0.1:") for port in published["temporal-ui"]] == [True]


def test_the_servers_reach_no_other_network(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
):
    for name in ("postgres", "redis", "temporal", "temporal-schema"):
        assert services[name]["networks"] == ["servers"]
    assert compose["networks"]["servers"]["internal"] is True


def test_everything_named_is_there(compose: dict[str, Any], services: dict[str, dict[str, Any]]):
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        assert set(service["networks"]) <= set(compose["networks"])
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (PROJECT_ROOT / source).is_dir()


def test_a_service_waited_for_can_become_what_is_waited_for(services: dict[str, dict[str, Any]]):
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            condition = how["condition"]
            assert condition != "service_healthy" or "healthcheck" in services[needed]
            assert condition != "service_completed_successfully" or services[needed][
                "restart"
            ].startswith("on-failure")


def test_the_worker_gets_longer_than_its_model_calls(services: dict[str, dict[str, Any]]):
    worker = services["worker"]

    grace = float(_environment(worker)["WORKER_GRACEFUL_SHUTDOWN_SECONDS"])
    assert float(worker["stop_grace_period"].removesuffix("s")) >= grace + 5


def test_images_are_of_one_version(services: dict[str, dict[str, Any]]):
    tags = [service["image"].rpartition(":")[2] for service in services.values()]

    assert "" not in tags
    assert "latest" not in tags
    assert (
        services["temporal"]["image"].split(":")[1]
        == (services["temporal-schema"]["image"].split(":")[1])
    )


def test_temporal_is_tuned_as_the_embedded_one_is():
    path = PROJECT_ROOT / "deploy" / "temporal" / "dynamic-config.yaml"
    tuned = {key: entries[0]["value"] for key, entries in yaml.safe_load(path.read_text()).items()}

    assert tuned == {key: json.loads(value) for key, value in TEMPORAL_DYNAMIC_CONFIG.items()}


def test_the_logins_of_the_first_start_can_migrate(tmp_path_factory: pytest.TempPathFactory):
    script = PROJECT_ROOT / "deploy" / "postgres" / "create-logins.sh"
    with PostgresServer(tmp_path_factory.mktemp("p") / "postgres", is_synced=False) as server:
        with psycopg.connect(server.database_url("postgres"), autocommit=True) as connection:
            connection.execute("drop database alphalab")  # the script makes it
        environment = {
            "PATH": f"{Path(postgres_binary('psql')).parent}:{os.environ['PATH']}",
            "PGHOST": server.socket_directory,
            "PGDATABASE": "postgres",
            "POSTGRES_USER": "postgres",
            "ALPHALAB_DATABASE_PASSWORD": "it's; drop",
            "TEMPORAL_DATABASE_PASSWORD": "temporal",
        }

        subprocess.run([script], env=environment, capture_output=True, check=True)
        upgrade(server.url.replace("postgres@", "alphalab@"))

        with psycopg.connect(server.url) as connection:
            query = "select rolsuper from pg_roles where rolname in ('alphalab', 'temporal')"
            assert connection.execute(query).fetchall() == [(False,), (False,)]


def test_the_example_lists_every_setting_and_nothing_else():
    text = (PROJECT_ROOT / ".env.example").read_text()
    listed = set(re.findall(r"^(\w+)=", text, re.MULTILINE))
    known = SETTING_NAMES | {name.upper() for name in StackSettings.model_fields}
    compose_only = {
        variable["name"] for variable in VARIABLE.finditer(COMPOSE_TEXT)
    } - SETTING_NAMES

    assert listed - compose_only == known
    assert compose_only <= listed


def test_the_image_gets_every_module_of_the_project():
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    modules = {f"{name}.py" for name in project["py-modules"]}
    packages = {name.removesuffix("*") for name in project["packages"]["find"]["include"]}
    lines = (PROJECT_ROOT / ".dockerignore").read_text().splitlines()

    included = {line[1:] for line in lines if line.startswith("!")}
    assert included == modules | packages | {"requirements-production.lock"}
    assert all((PROJECT_ROOT / name).exists() for name in included)


@pytest.mark.parametrize("lock", ["", "-dev", "-production"])
def test_locks_have_hashes_and_name_no_index(lock: str):
    lines = (PROJECT_ROOT / f"requirements{lock}.lock").read_text().splitlines()
    pinned = [line for line in lines if not line.startswith(" ")]

    assert all(re.match(r"[\w.\[\]-]+==\S+.* \\$", line) for line in pinned)
    assert not any("://" in line or line.startswith("-") for line in lines)
