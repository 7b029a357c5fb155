"""What one has been told, read and cleared."""

from uuid import UUID, uuid4

import pytest

from db.models import NewNotification
from db.repositories.inbox import InboxRepository
from tests.api.world import Person, World, error_of


async def tell(world: World, person: Person, *titles: str) -> list[str]:
    """Notify a person, each time a moment later; return the ids, the oldest first."""
    user_id = UUID((await person.get("/api/users/me")).json()["user"]["id"])
    ids = []
    for title in titles:
        new = NewNotification(
            user_id=user_id, type="info", category="paused", title=title, message="It paused."
        )
        async with world.services.database.for_user(user_id) as session:
            await InboxRepository(session).notify(new)
        ids.append(str(new.id))
    return ids


async def test_nobody_has_been_told_anything_at_first(ada: Person) -> None:
    answer = await ada.get("/api/notifications")

    assert answer.json() == {
        "notifications": [],
        "total": 0,
        "unread_count": 0,
        "pagination": {"page": 1, "limit": 20, "total": 0, "total_pages": 0},
    }
    assert (await ada.get("/api/notifications/unread-count")).json() == {"count": 0}


async def test_a_notification_is_shown_with_all_it_says(world: World, ada: Person) -> None:
    (told,) = await tell(world, ada, "Paused")

    item = (await ada.get("/api/notifications")).json()["notifications"][0]

    assert item.pop("created_at").endswith("Z")
    assert item == {
        "id": told,
        "type": "info",
        "category": "paused",
        "title": "Paused",
        "message": "It paused.",
        "action_url": None,
        "session_id": None,
        "result_id": None,
        "is_read": False,
        "read_at": None,
    }


async def test_pages_show_the_newest_first_and_each_once(world: World, ada: Person) -> None:
    await tell(world, ada, "one", "two", "three", "four", "five")

    pages = [
        (await ada.get(f"/api/notifications?limit=2&page={page}")).json() for page in (1, 2, 3, 4)
    ]

    titles = [[item["title"] for item in page["notifications"]] for page in pages]
    assert titles == [["five", "four"], ["three", "two"], ["one"], []]
    assert all((page["total"], page["unread_count"]) == (5, 5) for page in pages)
    assert pages[1]["pagination"] == {"page": 2, "limit": 2, "total": 5, "total_pages": 3}


async def test_unread_only_leaves_out_what_was_read(world: World, ada: Person) -> None:
    ids = await tell(world, ada, "one", "two", "three")
    await ada.post(f"/api/notifications/{ids[1]}/read")

    unread = (await ada.get("/api/notifications?unread_only=true")).json()
    everything = (await ada.get("/api/notifications?unread_only=")).json()

    assert [item["title"] for item in unread["notifications"]] == ["three", "one"]
    assert (unread["total"], unread["unread_count"]) == (2, 2)
    assert (everything["total"], everything["unread_count"]) == (3, 2)


async def test_reading_again_keeps_when_it_was_first_read(world: World, ada: Person) -> None:
    (told,) = await tell(world, ada, "Paused")

    first = (await ada.post(f"/api/notifications/{told}/read")).json()
    second = (await ada.post(f"/api/notifications/{told}/read")).json()

    assert first == second
    item = first.pop("notification")
    assert item == first
    assert item["is_read"]
    assert item["read_at"].endswith("Z")
    assert item["message"] == "It paused."


async def test_all_are_marked_as_read_once(world: World, ada: Person) -> None:
    await tell(world, ada, "one", "two")

    answers = [(await ada.post("/api/notifications/mark-all-read")).json() for _ in range(2)]

    assert [answer["count"] for answer in answers] == [2, 0]
    assert (await ada.get("/api/notifications/unread-count")).json() == {"count": 0}
    assert (await ada.get("/api/notifications")).json()["total"] == 2


async def test_what_is_cleared_is_gone(world: World, ada: Person) -> None:
    ids = await tell(world, ada, "one", "two")
    await ada.post(f"/api/notifications/{ids[0]}/read")

    answers = [(await ada.delete("/api/notifications/clear")).json() for _ in range(2)]

    assert [answer["count"] for answer in answers] == [2, 0]
    assert (await ada.get("/api/notifications")).json()["total"] == 0
    assert (await ada.get("/api/notifications/unread-count")).json() == {"count": 0}
    assert (await ada.post("/api/notifications/mark-all-read")).json()["count"] == 0
    gone = await ada.post(f"/api/notifications/{ids[0]}/read")
    error_of(gone, 404, "NOTIFICATION_NOT_FOUND")


async def test_another_users_notification_does_not_exist(
    world: World, ada: Person, bob: Person
) -> None:
    (told,) = await tell(world, ada, "Paused")

    error_of(await bob.post(f"/api/notifications/{told}/read"), 404, "NOTIFICATION_NOT_FOUND")
    error_of(await bob.post(f"/api/notifications/{uuid4()}/read"), 404, "NOTIFICATION_NOT_FOUND")
    assert (await bob.get("/api/notifications")).json()["total"] == 0
    assert (await bob.post("/api/notifications/mark-all-read")).json()["count"] == 0
    assert (await bob.delete("/api/notifications/clear")).json()["count"] == 0
    assert (await ada.get("/api/notifications/unread-count")).json() == {"count": 1}


@pytest.mark.parametrize("query", ["page=0", "limit=0", "limit=101", "unread_only=maybe"])
async def test_a_page_that_cannot_be_is_refused(ada: Person, query: str) -> None:
    error_of(await ada.get(f"/api/notifications?{query}"), 422, "VALIDATION_ERROR")


async def test_an_id_that_is_none_is_refused(ada: Person) -> None:
    error_of(await ada.post("/api/notifications/first/read"), 422, "VALIDATION_ERROR")
