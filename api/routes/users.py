"""The signed-in user."""

from fastapi import APIRouter

from api.dependencies import (
    Claims,
    CurrentUser,
    InjectedServices,
    check_active,
    profile_of,
    with_email,
)
from api.errors import Conflict, NotFound
from api.schemas.errors import documented
from api.schemas.users import (
    SettingsAnswer,
    SettingsChanges,
    SettingsOut,
    SyncAnswer,
    UserAnswer,
    UserChanges,
    UserOut,
)
from db.errors import UsernameTaken
from db.repositories.users import SignInRepository, UserRepository

router = APIRouter(prefix="/api/users", tags=["users"], responses=documented(401, 403, 503))


@router.post("/sync")
async def sync(services: InjectedServices, claims: Claims) -> SyncAnswer:
    """Take over what the token's claims say of the user; a body is ignored.

    An e-mail address that is still unknown is asked of Clerk, where `CLERK_SECRET_KEY` is set.
    """
    async with services.database.as_system() as session:
        user, is_new = await SignInRepository(session).sync(claims.subject, profile_of(claims))
    check_active(user)
    user = await with_email(services, claims, user)
    services.known_users.pop(claims.subject, None)
    message = "User created" if is_new else "User updated"
    return SyncAnswer(message=message, user=UserOut.model_validate(user))


@router.get("/me")
async def me(services: InjectedServices, user: CurrentUser) -> UserAnswer:
    async with services.database.for_user(user.id) as session:
        found = await UserRepository(session).get(user.id)
    if found is None:
        raise NotFound("user")
    return UserAnswer(user=UserOut.model_validate(found))


@router.put("/me", responses=documented(409, 422))
async def change_me(
    services: InjectedServices, user: CurrentUser, changes: UserChanges
) -> UserAnswer:
    """Change only what is named."""
    try:
        async with services.database.for_user(user.id) as session:
            changed = await UserRepository(session).update(
                user.id, changes.model_dump(exclude_none=True)
            )
    except UsernameTaken:
        raise Conflict("This username is taken.", code="USERNAME_TAKEN") from None
    return UserAnswer(user=UserOut.model_validate(changed))


@router.get("/me/settings")
async def my_settings(services: InjectedServices, user: CurrentUser) -> SettingsAnswer:
    """Return the settings; the first read makes them, with the defaults."""
    async with services.database.for_user(user.id) as session:
        found = await UserRepository(session).settings(user.id)
    return SettingsAnswer(settings=SettingsOut.model_validate(found))


@router.put("/me/settings", responses=documented(422))
async def change_my_settings(
    services: InjectedServices, user: CurrentUser, changes: SettingsChanges
) -> SettingsAnswer:
    """Change only what is named; tests that have started keep the limits they started with."""
    async with services.database.for_user(user.id) as session:
        changed = await UserRepository(session).update_settings(
            user.id, changes.model_dump(exclude_none=True)
        )
    return SettingsAnswer(settings=SettingsOut.model_validate(changed))
