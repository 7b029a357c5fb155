"""The `alphalab` command: the embedded stack, and what an operator does to it."""

import asyncio
import re
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import OperationalError

from certificates.signing import InvalidKey, SigningKey, new_seed
from local.data_directory import (
    DEFAULT_DATA_DIR,
    DataDirectory,
    ForeignIssuer,
    NoSuchCertificate,
    NothingToVerifyWith,
    StackNotRunning,
    StackRunning,
    check_is_own_issuer,
)
from local.demo_client import DemoFailed
from local.issuer import Issuer, issuer_of
from local.parity_view import NothingToCompare, comparison
from local.processes import ServerNotStarted, end_leftover
from local.stack import Stack, StackPlan, command_settings
from migrations.namespace import TemporalNotReached, upgrade_namespace
from settings import (
    AnySettings,
    InvalidSettings,
    KeySettings,
    MigrationSettings,
    PayloadSettings,
    SettingsError,
    load,
)
from trading.errors import TradingError

STOP_SECONDS = 90.0
LIFETIME = re.compile(r"(\d+)([smhd])")
LIFETIME_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

EXPECTED_ERRORS = (
    DemoFailed,
    ForeignIssuer,
    InvalidKey,
    NoSuchCertificate,
    NothingToCompare,
    NothingToVerifyWith,
    ServerNotStarted,
    SettingsError,
    StackNotRunning,
    StackRunning,
    TemporalNotReached,
    TradingError,
)

app = typer.Typer(
    help="Backtests of trading agents as durable workflows, on one machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # locals may hold a key
)
candles_app = typer.Typer(help="Historical candles.", no_args_is_help=True)
app.add_typer(candles_app, name="candles")
certificates_app = typer.Typer(help="Certificates that were issued.", no_args_is_help=True)
app.add_typer(certificates_app, name="certificates")
keys_app = typer.Typer(help="The users' API keys, and those of certificates.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

output = Console(highlight=False, soft_wrap=True)
notes = Console(stderr=True, highlight=False, soft_wrap=True)

DataDir = Annotated[
    Path, typer.Option("--data-dir", help="The stack's directory.", show_default=True)
]
Returned = TypeVar("Returned")


@app.command()
def up(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    api_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The API's port; 5000 when it is free.")
    ] = None,
) -> None:
    """Start the whole stack and keep it running until Ctrl-C or SIGTERM."""
    with explained_errors():
        Stack(DataDirectory(data_dir), say=_note, announce=_announce).run(api_port=api_port)


@app.command()
def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop the stack of a directory; its data stays."""
    with explained_errors():
        directory = DataDirectory(data_dir)
        supervisor = directory.record.supervisor
        if not directory.is_running or supervisor is None:
            raise StackNotRunning(f"No stack is running in {directory.path}.")
        end_leftover(supervisor.pid, supervisor.created, seconds=STOP_SECONDS)
        output.print("stopped")


@app.command()
def demo(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    candles: Annotated[
        Path | None, typer.Option(help="A CSV or Parquet file; without one, a simulated market.")
    ] = None,
    asset: Annotated[str | None, typer.Option(help="Such as BTC/USDT.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Such as 1h.")] = None,
    *,
    forward: Annotated[
        bool, typer.Option("--forward", help="A forward test on the simulated exchange instead.")
    ] = False,
    candles_to_watch: Annotated[
        int, typer.Option(min=1, help="After so many candles the forward test is stopped.")
    ] = 20,
) -> None:
    """Run a test and watch it: starts the stack if there is none, and leaves it running."""
    from local.demo import run_demo  # noqa: PLC0415  (slow to import)
    from local.demo_forward import Wishes, run_forward_demo  # noqa: PLC0415
    from local.demo_market import market_of  # noqa: PLC0415
    from local.demo_tour import SUBJECT  # noqa: PLC0415

    directory = DataDirectory(data_dir)

    def sign_in() -> str:
        return mint_token(directory, sub=SUBJECT, email=None, lifetime=timedelta(hours=12))

    with explained_errors():
        if not forward:
            market = market_of(candles, asset=asset, timeframe=timeframe)
            run_demo(directory, market, sign_in=sign_in)
            return
        if candles is not None:
            raise DemoFailed("A forward test follows the exchange: leave --candles out.")
        wishes = Wishes.of(asset, timeframe, candles_to_watch)
        run_forward_demo(directory, wishes, sign_in=sign_in)


@app.command()
def parity(
    id: Annotated[str, typer.Argument(help="The id of the test's session, or of its result.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Fold what an ended test recorded once more: exit code 1 unless all of it is the same."""
    from local.parity import compare_recorded  # noqa: PLC0415  (slow to import)

    with explained_errors():
        compared = run(compare_recorded(database_settings(DataDirectory(data_dir)), id))
    output.print(comparison(compared))
    if not compared.parity.is_equal:
        raise typer.Exit(1)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A certificate's bundle, a ZIP archive.")],
    public_key: Annotated[
        list[str] | None,
        typer.Option(
            help="A key of the issuer, as often as it has some: PEM, base64, or a file with "
            "either or with the JSON of /.well-known/alphalab-certificate-key."
        ),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Verify a certificate offline, from its bundle alone: exit code 1 unless it is genuine.

    Whether it was withdrawn since, only the service's page /verify/CODE tells.
    """
    from certificates.bundle_reading import BundleRefused  # noqa: PLC0415  (slow to import)
    from local import bundle_verification as bundles  # noqa: PLC0415

    with explained_errors():
        keys = bundles.chosen_keys(public_key or [], DataDirectory(data_dir))
        try:
            found = bundles.verified(file, keys)
        except BundleRefused as refused:
            if not as_json:
                raise _refused(bundles.printed(str(refused))) from None
            output.print(Text(bundles.refusal_as_json(refused)))
            raise typer.Exit(1) from None
    output.print(Text(bundles.as_json(found)) if as_json else bundles.report(found))
    if not found.is_genuine:
        raise typer.Exit(1)


@app.command()
def doctor(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Show what is reachable, which versions, and what to do about what is not."""
    from local.doctor import examine  # noqa: PLC0415  (slow to import, and needed here only)

    findings = run(examine(DataDirectory(data_dir)))
    table = Table("", "part", "state", "what to do", box=None, pad_edge=False)
    for finding in findings:
        mark = Text("ok", style="green") if finding.is_well else Text("no", style="bold red")
        advice = "" if finding.is_well else finding.advice
        table.add_row(mark, finding.subject, Text(finding.detail), Text(advice))
    output.print(table)
    if not all(finding.is_well for finding in findings):
        raise typer.Exit(1)


@app.command()
def migrate(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Bring the database and Temporal's namespace to what this version needs."""
    from migrations.run import upgrade  # noqa: PLC0415  (slow to import)

    with explained_errors():
        settings = _settings_for_migrating(DataDirectory(data_dir))
        upgrade(settings.owner_url)
        key = settings.temporal_api_key
        preparing = upgrade_namespace(
            settings.temporal_address,
            settings.temporal_namespace,
            api_key=key.get_secret_value() if key else None,
            tls=settings.temporal_tls,
        )
        run(preparing)
        output.print("The database and the Temporal namespace are up to date.")


@app.command()
def token(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    sub: Annotated[str, typer.Option(help="The user's id.")] = "user_local",
    email: Annotated[str | None, typer.Option(help="The user's e-mail address.")] = None,
    ttl: Annotated[str, typer.Option(help="How long it is valid: 90s, 30m, 12h, 7d.")] = "12h",
) -> None:
    """Print a session token of the stack's own issuer."""
    with explained_errors():
        output.print(
            mint_token(DataDirectory(data_dir), sub=sub, email=email, lifetime=_lifetime(ttl))
        )


@app.command()
def codec(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where it listens.")] = 8081,
    ui: Annotated[
        list[str] | None,
        typer.Option("--ui", help="The Web UI's address; by default the one of the stack."),
    ] = None,
) -> None:
    """Open sealed payloads for Temporal's Web UI, on this machine alone, until Ctrl-C."""
    from local.codec_server import serve  # noqa: PLC0415  (slow to import)
    from workflows.payload_codec import AesGcmCodec, InvalidPayloadKeys  # noqa: PLC0415

    directory = DataDirectory(data_dir)
    with explained_errors():
        settings = _loaded(PayloadSettings, command_settings(directory))
        origins = ui or [directory.running_record().addresses["Temporal Web UI"]]
        try:
            opened = AesGcmCodec.from_setting(settings.temporal_payload_keys.get_secret_value())
        except InvalidPayloadKeys as e:
            raise InvalidSettings({"TEMPORAL_PAYLOAD_KEYS": str(e)}) from None
        output.print(f"Codec endpoint for the Web UI: http://127.0.0.1:{port}")
        serve(opened, port=port, origins=origins)


@candles_app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file.", dir_okay=False)],
    asset: Annotated[str, typer.Option(help="Such as BTC/USDT.")],
    timeframe: Annotated[str, typer.Option(help="Such as 1h.")],
    source: Annotated[str | None, typer.Option(help="Where the candles come from.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Store a file's candles for everybody's tests: all of them or, on an error, none."""
    from db.engine import Database  # noqa: PLC0415  (slow to import)
    from local.candle_import import ImportedCandles, import_candles  # noqa: PLC0415

    async def imported(settings: dict[str, str]) -> ImportedCandles:
        database = Database.connect(
            settings["DATABASE_URL"], system_url=settings.get("DATABASE_SYSTEM_URL")
        )
        try:
            return await import_candles(
                database, file, asset=asset, timeframe=timeframe, source=source
            )
        finally:
            await database.dispose()

    with explained_errors():
        result = run(imported(database_settings(DataDirectory(data_dir))))
        what = "imported" if result.is_new else "there already:"
        output.print(
            f"{what} {result.candles:,} candles of {result.asset} {result.timeframe}, "
            f"{result.gaps:,} missing between them, source {result.source}"
        )
        output.print(f"fingerprint {result.fingerprint}")


@certificates_app.command("revoke")
def revoke_certificate(
    code: Annotated[str, typer.Argument(help="Such as ALX-2026-1127-K7M3Q.")],
    reason: Annotated[str, typer.Option(help="A sentence that everybody is shown.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Withdraw a certificate for good: whoever verifies it is told so, and why."""
    from db.engine import Database  # noqa: PLC0415  (slow to import)
    from db.models import CertificateRecord  # noqa: PLC0415
    from local.certificates import revoke  # noqa: PLC0415

    async def revoked(settings: dict[str, str]) -> CertificateRecord:
        database = Database.connect(
            settings["DATABASE_URL"], system_url=settings.get("DATABASE_SYSTEM_URL"), pool_size=1
        )
        try:
            return await revoke(database, code, reason)
        finally:
            await database.dispose()

    with explained_errors():
        found = run(revoked(database_settings(DataDirectory(data_dir))))
    output.print(
        Text(f"{found.verification_code} of {found.agent_name} is revoked: {found.revoked_reason}")
    )


@keys_app.command("new-certificate-key")
def new_certificate_key() -> None:
    """Print a new pair of keys for certificates, as settings of the worker and of the API."""
    seed = new_seed()
    output.print(f"CERTIFICATE_SIGNING_KEY={seed}")
    output.print(f"CERTIFICATE_PUBLIC_KEYS={SigningKey.from_seed(seed).public_key.base64}")


@keys_app.command()
def rotate(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Encrypt all stored API keys anew, under the first key of ENCRYPTION_KEY."""
    from db.engine import Database  # noqa: PLC0415  (slow to import)
    from local.key_rotation import Rotation, rotate_keys  # noqa: PLC0415

    async def rotated(settings: KeySettings) -> Rotation:
        system_url = settings.database_system_url
        database = Database.connect(
            settings.database_url.get_secret_value(),
            system_url=system_url.get_secret_value() if system_url else None,
        )
        try:
            return await rotate_keys(database, settings.encryption_keys)
        finally:
            await database.dispose()

    with explained_errors():
        done = run(rotated(_settings_for_rotating(DataDirectory(data_dir))))
    output.print(
        f"encrypted anew: {done.encrypted:,}, under the first key before: {done.current:,}"
    )
    if done.unreadable:
        notes.print(
            f"{done.unreadable:,} open with none of the keys: add the one they are under to "
            "ENCRYPTION_KEY, or let their users enter them again."
        )
        raise typer.Exit(1)


def mint_token(
    directory: DataDirectory, *, sub: str, email: str | None, lifetime: timedelta
) -> str:
    """A token that the API of the directory's running stack accepts.

    Raises `StackNotRunning`, and `ForeignIssuer` where somebody else signs the tokens.
    """
    record = directory.running_record()
    check_is_own_issuer(record)
    settings = record.settings
    claims = {"email": email} if email else {}
    if parties := settings.get("CLERK_AUTHORIZED_PARTIES"):
        claims["azp"] = parties.split(",")[0].strip()
    return Issuer.from_file(directory.issuer_key_file).token(
        issuer=settings.get("CLERK_ISSUER") or issuer_of(settings["CLERK_JWKS_URL"]),
        subject=sub,
        issued_at=datetime.now(UTC),
        lifetime=lifetime,
        claims=claims,
    )


def database_settings(directory: DataDirectory) -> dict[str, str]:
    """Where the database is: given, or the running stack's. Raises `StackNotRunning`."""
    settings = command_settings(directory)
    if "DATABASE_URL" not in settings:
        directory.running_record()
    return settings


def run(work: Coroutine[Any, Any, Returned]) -> Returned:
    """Run to the end, and leave the clients' native threads the time to end as well."""

    async def with_pause() -> Returned:
        try:
            return await work
        finally:
            await asyncio.sleep(0.1)  # without it, Temporal's client may abort the process

    return asyncio.run(with_pause())


@contextmanager
def explained_errors() -> Iterator[None]:
    """Turn what can go wrong into one sentence and exit code 1."""
    try:
        yield
    except EXPECTED_ERRORS as error:
        raise _refused(str(error)) from None
    except OperationalError as error:
        raise _refused(f"The database: {error.orig}") from None
    except OSError as error:
        raise _refused(
            f"{error.filename}: {error.strerror}" if error.filename else str(error)
        ) from None


def _refused(reason: str) -> typer.Exit:
    notes.print(Text.assemble(("error: ", "bold red"), reason))
    return typer.Exit(1)


def _settings_for_migrating(directory: DataDirectory) -> MigrationSettings:
    return _loaded(MigrationSettings, command_settings(directory))


def _settings_for_rotating(directory: DataDirectory) -> KeySettings:
    """The given keys, else those of the directory's running stack."""
    settings = database_settings(directory)
    if directory.is_running:
        settings = {"ENCRYPTION_KEY": directory.encryption_key, **settings}
    return _loaded(KeySettings, settings)


def _loaded(kind: type[AnySettings], settings: dict[str, str]) -> AnySettings:
    known = {name.lower(): value for name, value in settings.items()}
    return load(kind, **{name: known[name] for name in kind.model_fields if name in known})


def _lifetime(text: str) -> timedelta:
    found = LIFETIME.fullmatch(text)
    if found is None:
        raise typer.BadParameter("write a number and s, m, h or d, such as 12h", param_hint="--ttl")
    return timedelta(**{LIFETIME_UNITS[found[2]]: int(found[1])})


def _note(text: str) -> None:
    notes.print(Text(f"{datetime.now(UTC):%H:%M:%S} {text}"))


def _announce(plan: StackPlan) -> None:
    for name, address in plan.addresses.items():
        output.print(Text(f"{name + ':':<20}{address}"))
    output.print(Text(f"ready: {plan.api_url}"))
    sys.stdout.flush()


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
