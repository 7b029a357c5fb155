"""A signed link opens what it was signed for, as long as it was signed for."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import Forbidden
from api.signed_links import LinkQuery, SignedLinks

PATH = "/api/export/019a0000-0000-7000-8000-000000000000/download"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LINKS = SignedLinks(["n" * 32, "o" * 32])


def signed(path: str = PATH, *, links: SignedLinks = LINKS) -> LinkQuery:
    return LinkQuery(**dict(parse_qsl(links.sign(path, expires_at=NOW + DAY))))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_link_opens_its_path_until_it_expires(method: str):
    LINKS.check(method, PATH, signed(), now=NOW)
    LINKS.check(method, PATH, signed(), now=NOW + DAY - timedelta(seconds=1))

    with pytest.raises(Forbidden, match="expired"):
        LINKS.check(method, PATH, signed(), now=NOW + DAY)


def test_a_link_of_an_older_key_is_taken_until_that_key_is_dropped():
    old = signed(links=SignedLinks(["o" * 32]))

    LINKS.check("GET", PATH, old, now=NOW)
    with pytest.raises(Forbidden, match="not valid"):
        SignedLinks(["n" * 32]).check("GET", PATH, old, now=NOW)


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "get"])
def test_a_link_only_reads(method: str):
    with pytest.raises(Forbidden, match="not valid"):
        LINKS.check(method, PATH, signed(), now=NOW)


@given(path=st.text(), expires=st.text() | st.integers().map(str), signature=st.text())
def test_whatever_was_not_signed_is_refused(path: str, expires: str, signature: str):
    for changed in (
        signed().model_copy(update={"expires": expires}),
        signed().model_copy(update={"signature": signature}),
        LinkQuery(expires=expires, signature=signature),
    ):
        if changed != signed():
            with pytest.raises(Forbidden, match="not valid"):
                LINKS.check("GET", PATH, changed, now=NOW)
    if path != PATH:
        with pytest.raises(Forbidden, match="not valid"):
            LINKS.check("GET", path, signed(), now=NOW)


@pytest.mark.parametrize("part", ["expires", "signature"])
def test_what_lacks_a_part_is_refused(part: str):
    query = LinkQuery(**signed().model_dump(exclude={part}))

    with pytest.raises(Forbidden, match="not valid"):
        LINKS.check("GET", PATH, query, now=NOW)
