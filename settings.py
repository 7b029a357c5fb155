"""The settings of each process, read once from the environment (or `.env`) and never changed.

Nothing here falls back to a local server, key or simulator: what a process needs and does not
get is named, and the process does not start. `alphalab up` sets all of it for its children.

    SettingsError
    ├── MissingSettings   needed and not given
    └── InvalidSettings   given and unusable
"""

import base64
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from certificates.signing import PublicKey, SigningKey
from integrations.mail.letters import sender_of
from integrations.storage.locations import location_of

OPENROUTER_URL = "https://openrouter.ai/api/v1"
_METRICS_TOKEN_LENGTH = 16
_SIGNING_KEY_LENGTH = 32
# Svix makes 24; with none at all anybody could sign.
MIN_WEBHOOK_SECRET_BYTES = 16


class SettingsError(Exception):
    """The process cannot start with the settings it was given."""


class MissingSettings(SettingsError):
    """Settings are needed and not given."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(sorted(names))
        super().__init__(
            f"Missing settings: {', '.join(self.names)}. Set them in the environment or in .env; "
            ".env.example says what each is for."
        )


class InvalidSettings(SettingsError):
    """Settings are given and unusable; the message never repeats a value, it may be a secret."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        listed = "; ".join(f"{name}: {problem}" for name, problem in sorted(problems.items()))
        super().__init__(f"Invalid settings: {listed}.")


@contextmanager
def usable(name: str) -> Generator[None]:
    """A setting that only its use shows to be good: ValueError becomes `InvalidSettings`."""
    try:
        yield
    except ValueError as e:
        raise InvalidSettings({name: str(e)}) from None


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _without_slash(value: str) -> str:
    return value.rstrip("/")


def _fernet_keys(value: SecretStr) -> SecretStr:
    try:
        for key in value.get_secret_value().split(","):
            Fernet(key.strip())
    except ValueError:
        raise ValueError("must be Fernet keys, separated by commas") from None
    return value


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    try:
        for each in value:
            ip_network(each)
    except ValueError:
        raise ValueError(
            "must be IP addresses or networks such as 10.0.0.0/8, separated by commas"
        ) from None
    return value


def _listen_address(value: str) -> str:
    parts = urlsplit(f"//{value}")
    try:
        ip_address(parts.hostname or "")
        has_port = bool(parts.port)
    except ValueError:
        has_port = False
    if not has_port:
        raise ValueError("must be an IP address and a port, such as 127.0.0.1:9464")
    return value


def _long_enough(value: SecretStr) -> SecretStr:
    if len(value) < _METRICS_TOKEN_LENGTH:
        raise ValueError(f"must have at least {_METRICS_TOKEN_LENGTH} characters")
    return value


def _signing_keys(value: SecretStr) -> SecretStr:
    keys = _listed(value)
    if not keys or min(map(len, keys)) < _SIGNING_KEY_LENGTH:
        raise ValueError(
            f"must be secrets of at least {_SIGNING_KEY_LENGTH} characters, separated by commas"
        )
    return value


def _listed(value: SecretStr) -> tuple[str, ...]:
    return tuple(key.strip() for key in value.get_secret_value().split(","))


def _certificate_key(value: SecretStr) -> SecretStr:
    SigningKey.from_seed(value.get_secret_value())
    return value


def _public_keys(value: tuple[str, ...]) -> tuple[str, ...]:
    for each in value:
        PublicKey.parse(each)
    if not value:
        raise ValueError("must be public keys, separated by commas")
    return value


def _location(value: str) -> str:
    location_of(value)
    return value


def _webhook_secret(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not _is_webhook_secret(value.get_secret_value()):
        raise ValueError("must be the signing secret of the endpoint, which begins with whsec_")
    return value


def _is_webhook_secret(text: str) -> bool:
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        return False
    return len(key) >= MIN_WEBHOOK_SECRET_BYTES


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Networks = Annotated[Words, AfterValidator(_networks)]
MetricsToken = Annotated[SecretStr, AfterValidator(_long_enough)]
Address = Annotated[str, Field(pattern=r"^https?://[^\s]+$"), AfterValidator(_without_slash)]
ListenAddress = Annotated[str, AfterValidator(_listen_address)]
FernetKeys = Annotated[SecretStr, AfterValidator(_fernet_keys)]
SigningKeys = Annotated[SecretStr, AfterValidator(_signing_keys)]
CertificateKey = Annotated[SecretStr, AfterValidator(_certificate_key)]
PublicKeys = Annotated[Words, AfterValidator(_public_keys)]
StorageLocation = Annotated[str, AfterValidator(_location)]
WebhookSecret = Annotated[SecretStr | None, AfterValidator(_webhook_secret)]


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True, env_file=".env", env_ignore_empty=True, extra="ignore"
    )


class LogSettings(_Settings):
    """What a process writes about itself."""

    debug: bool = False
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @property
    def level(self) -> str:
        """The least that is logged: everything with `DEBUG`. No answer ever shows a traceback."""
        return "debug" if self.debug else self.log_level


class TemporalSettings(_Settings):
    """Where Temporal is, and how its payloads are sealed."""

    temporal_address: str
    temporal_namespace: str = "alphalab"
    temporal_task_queue: str = "alphalab"
    temporal_api_key: SecretStr | None = None
    temporal_tls: bool = False
    temporal_payload_keys: SecretStr | None = None


class PayloadSettings(_Settings):
    """What `alphalab codec` needs."""

    temporal_payload_keys: SecretStr


class DatabaseSettings(_Settings):
    """Where PostgreSQL is; one login serves all three roles unless others are given."""

    database_url: SecretStr
    database_system_url: SecretStr | None = None
    database_pool_size: int = Field(default=10, ge=1, le=200)


class MigrationSettings(LogSettings, TemporalSettings):
    """What `alphalab migrate` needs."""

    database_url: SecretStr
    database_owner_url: SecretStr | None = None

    @property
    def owner_url(self) -> str:
        return (self.database_owner_url or self.database_url).get_secret_value()


class KeySettings(DatabaseSettings):
    """What `alphalab keys rotate` needs."""

    encryption_key: FernetKeys

    @property
    def encryption_keys(self) -> tuple[str, ...]:
        """The Fernet keys: the first encrypts, all decrypt."""
        return _listed(self.encryption_key)


class ProcessSettings(LogSettings, KeySettings, TemporalSettings):
    """What the API and the worker both need."""

    environment: Literal["production", "staging", "development"] = "production"
    redis_url: SecretStr
    openrouter_base_url: Address = OPENROUTER_URL
    openrouter_api_key: SecretStr | None = None
    market_data_source: str | None = None
    exchange_base_url: Address | None = None
    storage_bucket: StorageLocation
    public_url: Address

    @property
    def market_source(self) -> str | None:
        """How data sets name the market data source: `exchange:binance`, `simulated`."""
        source = self.market_data_source
        return None if source is None else source.replace("ccxt:", "exchange:", 1)

    @property
    def is_development(self) -> bool:
        return self.environment == "development"


class ApiSettings(ProcessSettings):
    """What `server.py` needs."""

    host: str = "127.0.0.1"
    port: int = Field(default=5000, ge=1, le=65535)
    link_signing_key: SigningKeys
    certificate_public_keys: PublicKeys
    clerk_jwks_url: Address
    clerk_issuer: Address | None = None
    clerk_authorized_parties: Words = ()
    clerk_secret_key: SecretStr | None = None
    clerk_webhook_secret: WebhookSecret = None
    cors_origins: Words = ("http://localhost:3000",)
    trusted_proxies: Networks = ()
    rate_limit_per_minute: int = Field(default=60, ge=1)
    test_starts_per_minute: int = Field(default=10, ge=1)
    metrics_token: MetricsToken | None = None
    active_tests_free: int = Field(default=3, ge=1)
    active_tests_pro: int = Field(default=20, ge=1)
    active_tests_enterprise: int = Field(default=200, ge=1)

    @property
    def link_signing_keys(self) -> tuple[str, ...]:
        """The keys of signed links: the first signs, all verify."""
        return _listed(self.link_signing_key)

    @property
    def active_test_limits(self) -> Mapping[str, int] | None:
        """How many tests a user may run at once, by plan; None in development: no limit."""
        if self.is_development:
            return None
        return MappingProxyType(
            {
                "free": self.active_tests_free,
                "pro": self.active_tests_pro,
                "enterprise": self.active_tests_enterprise,
            }
        )


class MailSettings(_Settings):
    """Where e-mail is handed over; without a host none is sent."""

    smtp_host: str | None = None
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_tls: Literal["none", "starttls", "tls"] = "starttls"
    smtp_username: str | None = None
    smtp_password: SecretStr | None = Field(default=None, validate_default=True)
    smtp_from: str | None = Field(default=None, validate_default=True)

    @field_validator("smtp_password")
    @classmethod
    def _check_password(cls, given: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if (given is None) != (info.data.get("smtp_username") is None):
            raise ValueError("SMTP_USERNAME and SMTP_PASSWORD are given both or neither")
        if given is not None and info.data.get("smtp_tls") == "none":
            raise ValueError("would be sent in the clear; set SMTP_TLS to starttls or tls")
        return given

    @field_validator("smtp_from")
    @classmethod
    def _check_sender(cls, given: str | None, info: ValidationInfo) -> str | None:
        if given is not None:
            sender_of(given)
        elif info.data.get("smtp_host") is not None:
            raise ValueError("is needed where SMTP_HOST is set")
        return given


class WorkerSettings(ProcessSettings, MailSettings):
    """What `worker.py` needs."""

    certificate_signing_key: CertificateKey
    worker_max_activities: int = Field(default=50, ge=1)
    worker_max_decisions: int = Field(default=64, ge=1)
    worker_max_decisions_per_key: int = Field(default=32, ge=1)
    worker_metrics_address: ListenAddress | None = None
    worker_graceful_shutdown_seconds: float = Field(default=20.0, ge=0)
    worker_deployment_name: str | None = None
    worker_build_id: str | None = None


class StackSettings(_Settings):
    """What `alphalab up` reads for what only it starts."""

    # Faster than a day a second, a year of ours would go beyond the dates that there are.
    simulated_exchange_speed: float = Field(default=1.0, ge=1, le=86_400, allow_inf_nan=False)


AnySettings = TypeVar("AnySettings", bound=_Settings)


def load(kind: type[AnySettings], **given: Any) -> AnySettings:
    """Read one kind of settings; `given` wins over the environment. Raises `SettingsError`."""
    try:
        return kind(**given)
    except ValidationError as error:
        raise _explained(error) from None


def api_settings() -> ApiSettings:
    """The settings of the API. Raises `SettingsError`."""
    return load(ApiSettings)


def worker_settings() -> WorkerSettings:
    """The settings of a worker. Raises `SettingsError`."""
    return load(WorkerSettings)


def _explained(error: ValidationError) -> SettingsError:
    problems = {str(item["loc"][0]).upper(): item for item in error.errors(include_input=False)}
    missing = [name for name, item in problems.items() if item["type"] == "missing"]
    if missing:
        return MissingSettings(missing)
    return InvalidSettings({name: item["msg"] for name, item in problems.items()})
