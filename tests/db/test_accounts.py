"""Users, settings and keys."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from db.engine import Database
from db.errors import UsernameTaken
from db.models import ApiKeyRecord
from db.repositories.api_keys import ApiKeyRepository, CiphertextRepository
from db.repositories.users import Profile, SignInRepository, UserRepository
from tests.db.accounts import Account


def a_name() -> str:
    return f"user_{uuid4().hex}"


async def add_key(account: Account, *, set_as_default: bool = False) -> ApiKeyRecord:
    async with account.database.for_user(account.id) as session:
        return await ApiKeyRepository(session).add(
            user_id=account.id,
            key_prefix="sk-or-v1-••••",
            encrypted_key="cipher",
            set_as_default=set_as_default,
        )


async def defaults(account: Account) -> list[bool]:
    async with account.database.for_user(account.id) as session:
        return [key.is_default for key in await ApiKeyRepository(session).all()]


async def test_a_first_sign_in_that_races_with_itself_makes_one_user(database: Database):
    clerk_id = a_name()

    async def sign_in() -> tuple[object, bool]:
        async with database.as_system() as session:
            user, created = await SignInRepository(session).get_or_create(
                clerk_id, Profile(email=f"{clerk_id}@example.com")
            )
            return user.id, created

    answers = await asyncio.gather(*(sign_in() for _ in range(20)))

    assert len({user_id for user_id, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1


async def test_an_email_or_username_of_another_is_left_null_and_the_rest_is_stored(
    database: Database,
):
    name = a_name()
    profile = Profile(email=f"{name}@example.com", username=name, first_name="Ada")
    async with database.as_system() as session:
        repository = SignInRepository(session)
        await repository.sync(a_name(), profile)
        second, created = await repository.sync(a_name(), profile)

    assert created
    assert (second.email, second.username, second.first_name) == (None, None, "Ada")


async def test_racing_users_with_one_email_both_sign_in(database: Database):
    email = f"{a_name()}@example.com"

    async def sign_in() -> str | None:
        async with database.as_system() as session:
            user, _ = await SignInRepository(session).sync(a_name(), Profile(email=email))
            return user.email

    emails = await asyncio.gather(*(sign_in() for _ in range(6)))

    assert sorted(emails, key=str) == [None] * 5 + [email]


async def test_sync_updates_what_is_known_and_forgets_nothing(database: Database):
    clerk_id = a_name()
    async with database.as_system() as session:
        repository = SignInRepository(session)
        await repository.sync(clerk_id, Profile(first_name="Ada", last_name="L"))
        user, created = await repository.sync(clerk_id, Profile(last_name="Lovelace"))

    assert not created
    assert (user.first_name, user.last_name) == ("Ada", "Lovelace")


async def test_a_user_changes_the_own_profile_and_no_taken_username(
    account: Account, stranger: Account
):
    name = a_name()
    async with account.database.for_user(account.id) as session:
        changed = await UserRepository(session).update(
            account.id, {"timezone": "Europe/Berlin", "username": name}
        )
    assert (changed.timezone, changed.username) == ("Europe/Berlin", name)
    assert changed.updated_at > changed.created_at

    async with stranger.database.for_user(stranger.id) as session:
        with pytest.raises(UsernameTaken, match=name):
            await UserRepository(session).update(stranger.id, {"username": name})
        assert await UserRepository(session).get(account.id) is None


async def test_settings_begin_with_the_defaults_even_when_first_reads_race(account: Account):
    async def read() -> dict[str, object]:
        async with account.database.for_user(account.id) as session:
            settings = await UserRepository(session).settings(account.id)
            return settings.model_dump(exclude={"updated_at"})

    answers = await asyncio.gather(*(read() for _ in range(8)))

    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["theme"] == "dark"
    assert answers[0]["default_capital"] == 10_000.0
    assert answers[0]["max_position_size_pct"] == 50.0
    assert answers[0]["max_total_drawdown_pct"] == 20.0
    assert answers[0]["safety_mode_default"] is True


async def test_settings_change_in_part_and_notification_groups_key_by_key(account: Account):
    async with account.database.for_user(account.id) as session:
        repository = UserRepository(session)
        before = await repository.settings(account.id)
        after = await repository.update_settings(
            account.id,
            {"theme": "light", "max_leverage": 3, "email_notifications": {"marketing": True}},
        )

    assert (after.theme, after.max_leverage, after.accent_color) == ("light", 3, "cyan")
    assert after.email_notifications == before.email_notifications | {"marketing": True}


async def test_the_first_key_is_the_default_and_another_can_become_it(account: Account):
    await add_key(account)
    second = await add_key(account)
    assert await defaults(account) == [True, False]

    await add_key(account, set_as_default=True)
    assert await defaults(account) == [False, False, True]

    async with account.database.for_user(account.id) as session:
        changed = await ApiKeyRepository(session).set_default(second.id)
    assert changed is not None
    assert await defaults(account) == [False, True, False]


async def test_first_keys_added_at_once_leave_one_default(account: Account):
    await asyncio.gather(*(add_key(account) for _ in range(6)))

    assert sum(await defaults(account)) == 1


async def test_a_deleted_key_names_its_agents_and_hands_on_the_default(account: Account):
    first, second = await add_key(account), await add_key(account)
    agent = await account.add_agent(api_key_id=first.id)
    async with account.database.for_user(account.id) as session:
        repository = ApiKeyRepository(session)
        used = await repository.get(first.id)
        assert used is not None
        assert used.used_by == ["Alpha"]
        assert await repository.delete(first.id) == [agent.id]
        left = await repository.all()
        assert await repository.delete(first.id) is None

    assert [(key.id, key.is_default, key.used_by) for key in left] == [(second.id, True, [])]


async def test_a_key_keeps_its_status_and_is_exchanged_only_as_it_was_read(account: Account):
    key = await add_key(account)
    now = datetime.now(UTC)
    async with account.database.for_user(account.id) as session:
        repository = ApiKeyRepository(session)
        checked = await repository.set_status(key.id, "valid", validated_at=now)
        assert checked is not None
        assert (checked.status, checked.last_validated_at) == ("valid", now)
    async with account.database.as_system() as session:
        ciphertexts = CiphertextRepository(session)
        assert not await ciphertexts.replace(key.id, old="other", new="newer")
        assert await ciphertexts.replace(key.id, old="cipher", new="newer")
        assert not await ciphertexts.replace(key.id, old="cipher", new="newest")
        assert (key.id, "newer") in await ciphertexts.page(after=UUID(int=key.id.int - 1), limit=1)


async def test_the_key_of_another_does_not_exist(account: Account, stranger: Account):
    key = await add_key(account)
    async with stranger.database.for_user(stranger.id) as session:
        repository = ApiKeyRepository(session)
        assert await repository.get(key.id) is None
        assert await repository.encrypted(key.id) is None
        assert await repository.set_default(key.id) is None
        assert await repository.delete(key.id) is None
