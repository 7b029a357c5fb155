"""Users and their settings."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.errors import UniqueViolation
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from db.errors import UsernameTaken
from db.identifiers import new_id
from db.models import User, UserRecord, UserSettings, UserSettingsRecord

_CONTESTED = ("email", "username")
# Users cannot change these here, so what the provider no longer has is forgotten.
_PROVIDERS_OWN = ("email", "image_url")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What the identity provider says of a user; None for what it does not say."""

    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    username: str | None = None
    image_url: str | None = None


class SignInRepository:
    """Users by the identity provider's id; needs a transaction of the system."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find(self, clerk_id: str) -> UserRecord | None:
        """Return the user of that id, active or not."""
        found = await self._session.scalar(select(User).where(col(User.clerk_id) == clerk_id))
        return None if found is None else _user(found)

    async def get_or_create(
        self, clerk_id: str, profile: Profile | None = None
    ) -> tuple[UserRecord, bool]:
        """Return the user and whether this call created it; any number of calls may race."""
        if (found := await self.find(clerk_id)) is not None:
            return found, False
        return await self.sync(clerk_id, profile or Profile())

    async def sync(self, clerk_id: str, profile: Profile) -> tuple[UserRecord, bool]:
        """Store what is known of the user; return it and whether this call created it.

        An email address or username that somebody else holds is left null: that must not keep
        anyone from signing in.
        """
        created = await self._insert(clerk_id)
        user = await self._locked(clerk_id)
        await self._store_all(user, _news(user, profile))
        return _user(user), created

    async def follow(self, clerk_id: str, profile: Profile, told_at: datetime | None) -> UserRecord:
        """Store what the identity provider says of the user as of `told_at`; return the user.

        What is older than what was said before changes nothing, nor does what is said of a user
        who was deactivated. What has no time counts only where nothing came that has one.
        """
        await self._insert(clerk_id)
        user = await self._locked(clerk_id)
        if user.is_active and _is_newer(told_at, user.clerk_updated_at):
            forgotten = {
                name: None
                for name in _PROVIDERS_OWN
                if getattr(profile, name) is None and getattr(user, name) is not None
            }
            times = {} if told_at is None else {"clerk_updated_at": told_at}
            await self._store_all(user, {**_news(user, profile), **forgotten, **times})
        return _user(user)

    async def deactivate(self, clerk_id: str) -> UserRecord:
        """Shut the user out for good; one who was never seen is remembered as shut out."""
        await self._insert(clerk_id)
        user = await self._locked(clerk_id)
        await self._store_all(user, {"is_active": False})
        return _user(user)

    async def _insert(self, clerk_id: str) -> bool:
        """Make sure that there is such a user; return whether this call created it."""
        created = await self._session.scalar(
            insert(User)
            .values(id=new_id(), clerk_id=clerk_id)
            .on_conflict_do_nothing(index_elements=["clerk_id"])
            .returning(col(User.id))
        )
        return created is not None

    async def _locked(self, clerk_id: str) -> User:
        query = select(User).where(col(User.clerk_id) == clerk_id).with_for_update()
        return (await self._session.scalars(query)).one()

    async def _store_all(self, user: User, values: dict[str, Any]) -> None:
        for group in _groups(values):
            await self._store(user, group)
        await self._session.refresh(user)

    async def _store(self, user: User, values: dict[str, Any]) -> None:
        change = update(User).where(col(User.id) == user.id)
        try:
            async with self._session.begin_nested():
                await self._session.execute(change.values(**values))
        except IntegrityError as error:
            if not isinstance(error.orig, UniqueViolation):
                raise
            await self._session.execute(change.values(**dict.fromkeys(values)))


class UserRepository:
    """The user's own row and settings, within the user's transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, user_id: UUID) -> UserRecord | None:
        """Return the user."""
        found = await self._session.get(User, user_id, populate_existing=True)
        return None if found is None else _user(found)

    async def update(self, user_id: UUID, changes: Mapping[str, Any]) -> UserRecord:
        """Change columns by name. Raises `UsernameTaken`."""
        if changes:
            change = update(User).where(col(User.id) == user_id).values(**changes)
            try:
                async with self._session.begin_nested():
                    await self._session.execute(change)
            except IntegrityError as error:
                raise UsernameTaken(str(changes.get("username"))) from error
        return _user(await self._session.get_one(User, user_id, populate_existing=True))

    async def settings(self, user_id: UUID) -> UserSettingsRecord:
        """Return the settings, made with the defaults when there are none yet."""
        query = select(UserSettings).where(col(UserSettings.user_id) == user_id)
        query = query.execution_options(populate_existing=True)
        found = await self._session.scalar(query)
        if found is None:
            defaults = UserSettings(user_id=user_id).model_dump(
                exclude={"created_at", "updated_at"}
            )
            await self._session.execute(
                insert(UserSettings).values(**defaults).on_conflict_do_nothing()
            )
            found = (await self._session.scalars(query)).one()
        return UserSettingsRecord.model_validate(found, from_attributes=True)

    async def update_settings(
        self, user_id: UUID, changes: Mapping[str, Any]
    ) -> UserSettingsRecord:
        """Change columns by name; the notification groups are merged key by key."""
        await self.settings(user_id)
        if changes:
            values = {
                name: getattr(UserSettings, name).op("||")(func.jsonb_build_object(*_pairs(value)))
                if isinstance(value, Mapping)
                else value
                for name, value in changes.items()
            }
            change = update(UserSettings).where(col(UserSettings.user_id) == user_id)
            await self._session.execute(
                change.values(**values), execution_options={"synchronize_session": False}
            )
        return await self.settings(user_id)


def _pairs(group: Mapping[str, Any]) -> list[Any]:
    return [part for pair in group.items() for part in pair]


def _news(user: User, profile: Profile) -> dict[str, Any]:
    given = asdict(profile)
    return {
        name: value
        for name, value in given.items()
        if value is not None and value != getattr(user, name)
    }


def _is_newer(told_at: datetime | None, known: datetime | None) -> bool:
    return known is None or (told_at is not None and told_at >= known)


def _groups(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Each contested column apart, so that a conflict on one does not cost the others."""
    alone = [{name: values[name]} for name in _CONTESTED if name in values]
    free = {name: value for name, value in values.items() if name not in _CONTESTED}
    return [*([free] if free else []), *alone]


def _user(user: User) -> UserRecord:
    return UserRecord.model_validate(user, from_attributes=True)
