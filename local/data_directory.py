"""One stack's directory: its data, its generated keys, and what is known of the running stack."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psutil
from cryptography.fernet import Fernet
from pydantic import BaseModel, ConfigDict, ValidationError

from certificates.signing import PublicKey, SigningKey, new_seed
from local.issuer import create_key, write_private
from local.processes import ServerNotStarted, lock_within, private_directory
from local.simulators.exchange_clock import ClockOrigin

DEFAULT_DATA_DIR = Path(".alphalab")
LINK_KEY_BYTES = 32
LOCK_SECONDS = 2.0  # a `doctor` that looks takes the lock for an instant


class StackRunning(RuntimeError):
    """Another `alphalab up` holds the directory."""


class StackNotRunning(RuntimeError):
    """The command needs the stack of a directory, and there is none."""


class NothingToVerifyWith(ValueError):
    """There is no public key to verify a certificate with, in a sentence."""


class NoSuchCertificate(LookupError):
    """Nobody was given a certificate with this code."""


class ProcessRecord(BaseModel):
    """A process, told apart from a later one with the same number by its time of creation."""

    model_config = ConfigDict(frozen=True)

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> "ProcessRecord | None":
        """None when the process has ended."""
        try:
            return cls(pid=pid, created=psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None


class StackRecord(BaseModel):
    """What `stack.json` says: ports are kept for the next start, the rest is of this run."""

    model_config = ConfigDict(frozen=True)

    state: Literal["stopped", "starting", "ready", "stopping"] = "stopped"
    ports: dict[str, int] = {}
    settings: dict[str, str] = {}
    addresses: dict[str, str] = {}
    supervisor: ProcessRecord | None = None
    children: dict[str, ProcessRecord] = {}


class ForeignIssuer(RuntimeError):
    """The stack takes tokens that only somebody else can sign."""


def check_is_own_issuer(record: StackRecord) -> None:
    """Raise `ForeignIssuer` unless the stack's own issuer signs its users in."""
    jwks_url = record.settings["CLERK_JWKS_URL"]
    if not jwks_url.startswith(f"http://127.0.0.1:{record.ports['simulators']}/"):
        raise ForeignIssuer(
            f"This stack takes only tokens that {jwks_url} verifies, and nobody can be signed in "
            "there from here: use a stack without CLERK_JWKS_URL."
        )


class DataDirectory:
    """Where a stack keeps what must outlive it; nobody but this user may enter it."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def create(self) -> None:
        private_directory(self.path).chmod(0o700)

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def issuer_key_file(self) -> Path:
        return self.path / "issuer.pem"

    @property
    def record(self) -> StackRecord:
        """What is known of the stack; an empty record where nothing is, or nothing readable."""
        try:
            return StackRecord.model_validate_json((self.path / "stack.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return StackRecord()

    def write(self, record: StackRecord) -> None:
        write_private(self.path / "stack.json", record.model_dump_json(indent=1).encode())

    def create_keys(self) -> None:
        """Generate, at the first start, the keys that this stack then keeps."""
        if not self.issuer_key_file.exists():
            create_key(self.issuer_key_file)
        if not self._encryption_key_file.exists():
            write_private(self._encryption_key_file, Fernet.generate_key())
        if not self._link_key_file.exists():
            write_private(self._link_key_file, secrets.token_hex(LINK_KEY_BYTES).encode())
        if not self._certificate_key_file.exists():
            write_private(self._certificate_key_file, new_seed().encode())

    @property
    def storage(self) -> Path:
        return self.path / "storage"

    @property
    def encryption_key(self) -> str:
        return self._encryption_key_file.read_text().strip()

    @property
    def link_signing_key(self) -> str:
        return self._link_key_file.read_text().strip()

    @property
    def certificate_signing_key(self) -> str:
        return self._certificate_key_file.read_text().strip()

    @property
    def certificate_public_key(self) -> PublicKey | None:
        """The key that verifies this stack's certificates; None before its first start."""
        if not self._certificate_key_file.exists():
            return None
        return SigningKey.from_seed(self.certificate_signing_key).public_key

    @property
    def _certificate_key_file(self) -> Path:
        return self.path / "certificates.key"

    @property
    def _link_key_file(self) -> Path:
        return self.path / "links.key"

    @property
    def _encryption_key_file(self) -> Path:
        return self.path / "encryption.key"

    def exchange_clock(self, *, speed: float, wall_ms: float) -> ClockOrigin:
        """Since when the simulated exchange's clock runs at this speed: stored at the first start.

        Raises `ServerNotStarted` for a file that cannot be read: to start anew would set the clock
        back.
        """
        file = self.path / "exchange-clock.json"
        try:
            stored = ClockOrigin.model_validate_json(file.read_bytes()) if file.exists() else None
        except ValidationError as error:
            raise ServerNotStarted(f"{file} does not hold a clock: {error}") from None
        origin = ClockOrigin.going_on_from(stored, speed=speed, wall_ms=wall_ms)
        if origin != stored:
            write_private(file, origin.model_dump_json(indent=1).encode())
        return origin

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for one stack. Raises `StackRunning`."""
        descriptor = os.open(self.path / "stack.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not lock_within(descriptor, seconds=LOCK_SECONDS):
                raise StackRunning(f"A stack is already running in {self.path}.")
            yield
        finally:
            os.close(descriptor)

    @property
    def is_running(self) -> bool:
        """Whether a stack holds the directory, ready or not."""
        lock_file = self.path / "stack.lock"
        if not lock_file.exists():
            return False
        with lock_file.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def running_record(self) -> StackRecord:
        """What is known of the running, ready stack. Raises `StackNotRunning`."""
        record = self.record
        if self.is_running and record.state == "ready":
            return record
        state = f"is {record.state}" if self.is_running else "is not running"
        raise StackNotRunning(
            f"The stack of {self.path} {state}: start it with `alphalab up` and wait for `ready`, "
            "or name another directory with --data-dir."
        )
