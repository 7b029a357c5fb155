"""What the documents say is there is there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.services import PROJECT_ROOT
from settings import ApiSettings, MigrationSettings, StackSettings, WorkerSettings

DOCUMENTS = sorted([*PROJECT_ROOT.glob("*.md"), *PROJECT_ROOT.glob("docs/**/*.md")])
RECORDS = sorted(PROJECT_ROOT.glob("docs/adr/[0-9]*.md"))
RECORD_WORDS = 300

LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# What looks like a path of this project: a folder of it, or a file in one.
PATH = re.compile(r"[\w.-]+/(?:[\w.-]+/)*(?:[\w.-]+\.\w+)?|[\w-]+\.(?:py|md|toml|yml|sh|json)")
MADE_AT_RUN_TIME = {
    *("postgres/", "redis/", "temporal/", "sockets/", "logs/"),
    *("exchange-clock.json", "stack.json"),
    "certificate.json",
}


def _name(path: Path) -> str:
    return str(path.relative_to(PROJECT_ROOT))


def _anchors(text: str) -> set[str]:
    """The anchors that a page's headings get on the sites that show it."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text))
    return {heading.strip().replace(" ", "-") for heading in plain}


def _paths(text: str) -> Iterator[str]:
    for code in CODE.findall(CODE_BLOCK.sub("", text)):
        if PATH.fullmatch(code) and code not in MADE_AT_RUN_TIME:
            yield code


def _exists(path: str) -> bool:
    """Anywhere in the project: a page may name a file of the package that it speaks of."""
    packages = (entry for entry in PROJECT_ROOT.iterdir() if (entry / "__init__.py").exists())
    return any(
        (place / path).exists() for place in (PROJECT_ROOT, PROJECT_ROOT / "tests", *packages)
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_every_link_leads_somewhere(document: Path):
    for target, anchor in LINK.findall(document.read_text()):
        page = (document.parent / target) if target else document
        assert page.exists(), target
        if anchor:
            assert anchor in _anchors(page.read_text()), f"{target}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_every_file_named_is_there(document: Path):
    assert [path for path in _paths(document.read_text()) if not _exists(path)] == []


def test_every_setting_is_explained():
    text = (PROJECT_ROOT / "docs" / "operations.md").read_text()
    kinds = (ApiSettings, WorkerSettings, MigrationSettings, StackSettings)
    names = {name.upper() for kind in kinds for name in kind.model_fields}

    assert {name for name in names if name not in text} == {
        "ACTIVE_TESTS_PRO",
        "ACTIVE_TESTS_ENTERPRISE",
    }


def test_every_decision_is_listed_and_short():
    index = (PROJECT_ROOT / "docs" / "adr" / "README.md").read_text()

    assert [_name(record) for record in RECORDS if record.name not in index] == []
    assert [_name(r) for r in RECORDS if len(r.read_text().split()) > RECORD_WORDS] == []


def test_every_event_is_explained():
    text = (PROJECT_ROOT / "docs" / "events.md").read_text()
    sources = "".join(
        path.read_text()
        for folder in ("activities", "api/realtime", "events")
        for path in (PROJECT_ROOT / folder).glob("*.py")
    )
    named = re.findall(r'"event": "(\w+)"|own_(?:message|event)\(\s*"(\w+)"|event="(\w+)"', sources)

    assert named
    assert {name for names in named for name in names if name and f"`{name}`" not in text} == set()
