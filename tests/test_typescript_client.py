"""The TypeScript client is the one that the documents describe; `make client` writes it anew."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import orjson
import pytest

from local.services import PROJECT_ROOT

CLIENT = PROJECT_ROOT / "clients" / "typescript"
SOURCES = {"rest.ts": "openapi.json", "sockets.ts": "asyncapi.json"}


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node: the TypeScript client is NOT checked")
    if not (CLIENT / "node_modules").is_dir():
        pytest.skip("no node_modules: the TypeScript client is NOT checked; run `make client`")
    return found


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=CLIENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("name", "source"), SOURCES.items())
def test_what_was_generated_names_the_document_that_it_is_of(name: str, source: str):
    digest = hashlib.sha256((PROJECT_ROOT / "docs" / source).read_bytes()).hexdigest()

    header = (CLIENT / "src" / name).read_text().partition("\n\n")[0].splitlines()

    assert f"// SHA-256 of {source}: {digest}" in header, "run: make client"


def test_what_was_generated_is_up_to_date(node: str, tmp_path: Path):
    run(node, "generate.mjs", str(PROJECT_ROOT / "docs"), str(tmp_path))

    for name in SOURCES:
        committed = (CLIENT / "src" / name).read_text()
        assert committed == (tmp_path / name).read_text(), "run: make client"


def test_the_client_and_its_example_have_the_types_they_use(node: str):
    run(node, "node_modules/typescript/bin/tsc", "--noEmit")


def test_a_socket_loses_nothing_and_tells_how_it_ended(node: str, tmp_path: Path):
    shutil.copy(CLIENT / "package.json", tmp_path)
    (tmp_path / "node_modules").symlink_to(CLIENT / "node_modules")
    compiled = ("--noEmit", "false", "--outDir", str(tmp_path))
    run(node, "node_modules/typescript/bin/tsc", *compiled)

    run(node, "sockets.test.mjs", str(tmp_path / "src" / "index.js"))


def test_the_asyncapi_document_is_one(node: str):
    run(node, "validate.mjs")


def test_the_lock_file_names_no_registry():
    packages = orjson.loads((CLIENT / "package-lock.json").read_bytes())["packages"]

    assert len(packages) > 1
    assert [name for name, package in packages.items() if "resolved" in package] == []
