"""What every demo needs before it begins: a ready stack, and a user of its API."""

import asyncio
import io
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import httpx
from rich.console import Console

from local.data_directory import DataDirectory, StackRecord, check_is_own_issuer
from local.demo_client import ANSWER_SECONDS, ApiClient, DemoFailed
from local.demo_report import alphalab_command
from local.demo_view import View
from local.stack import given_settings, start_in_background

# The user that `alphalab token` signs in as, so that its tokens show what the demo made.
SUBJECT = "user_local"
START_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tour:
    """A ready stack, somebody who is signed in to it, and the screen."""

    directory: DataDirectory
    record: StackRecord
    view: View
    client: ApiClient


def run_tour(
    directory: DataDirectory,
    visit: Callable[[Tour], Awaitable[None]],
    *,
    sign_in: Callable[[], str],
    settings: Mapping[str, str] | None = None,
) -> None:
    """Make sure that there is a ready stack, sign in to it, and visit it.

    `sign_in` mints a token of the running stack's issuer for `SUBJECT`; `settings` are those of a
    stack that has to be started, where nobody has given others. Raises `DemoFailed`, and
    `ServerNotStarted` when there is no stack and none can be started.
    """
    view = View(_console())
    try:
        _ensure_stack(directory, view, settings or {})
    except KeyboardInterrupt:
        view.line("You left before the stack was ready.")
        raise
    record = directory.running_record()
    check_is_own_issuer(record)
    asyncio.run(_visit(directory, record, view, sign_in(), visit))


async def _visit(
    directory: DataDirectory,
    record: StackRecord,
    view: View,
    token: str,
    visit: Callable[[Tour], Awaitable[None]],
) -> None:
    async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as http:
        client = ApiClient(
            http,
            api_url=record.addresses["API"],
            token=token,
            on_waiting=lambda: view.line("The API is away for the moment; waiting ..."),
        )
        message = (await client.post("/api/users/sync"))["message"]
        told = "created" if message == "User created" else "known already"
        view.step("User", f"{SUBJECT}, {told}; signed in by the stack's own token issuer")
        await visit(Tour(directory=directory, record=record, view=view, client=client))


def _console() -> Console:
    """What stands in the texts is shown as it is; a character that cannot be becomes a `?`."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(highlight=False, markup=False, emoji=False)


def _ensure_stack(directory: DataDirectory, view: View, settings: Mapping[str, str]) -> None:
    began = time.monotonic()
    if _has_ready_stack(directory, view):
        view.step("Stack", f"already running in {directory.path}, so the demo uses it")
        return

    def describe() -> str:
        started = ", ".join(directory.record.children)
        return f"Starting the stack in {directory.path}" + (f": {started}" if started else "")

    with view.waiting(describe):
        start_in_background(directory, {**settings, **given_settings()})
    view.step("Stack", f"started in {directory.path} in {time.monotonic() - began:.0f} s")
    view.step("", f"it keeps running: `{alphalab_command(directory, 'down')}` stops it")


def _has_ready_stack(directory: DataDirectory, view: View) -> bool:
    """Whether the directory has a running stack; one that starts or stops is waited for."""

    def is_settled() -> bool:
        return not directory.is_running or directory.record.state == "ready"

    if not is_settled():
        deadline = time.monotonic() + START_SECONDS
        with view.waiting(lambda: f"The stack in {directory.path} is {directory.record.state}"):
            while not is_settled():
                if time.monotonic() > deadline:
                    raise DemoFailed(f"The stack in {directory.path} does not become ready.")
                time.sleep(0.1)
    return directory.is_running
