"""What can go wrong at a third party, in one vocabulary that retry policies understand.

IntegrationError
├── TemporarilyUnavailable   408, 409, 425, 429, 5xx, lost connections, time limits: try again
│   └── RateLimited          an exchange's 418, 429 and their like: try again, but later
├── RequestRejected          400, 404 and the like: the same request fails again
│   ├── SymbolUnavailable    the exchange does not know the asset, or no longer lists it
│   └── ObjectNotFound       the storage has nothing under the key
├── AuthenticationFailed     401, 403: the key is wrong, disabled or not allowed this
├── InsufficientCredits      402: the account needs money first
└── ReplyTooLarge            the model wrote more than anybody would read: an invalid reply
"""


class IntegrationError(Exception):
    """A third party did not do what it was asked; `status` is its HTTP status, when it gave one.

    `was_free` says that surely nothing was bought: the request never left, or was refused as a
    whole. Of a reply that broke off nobody knows.
    """

    was_free = False

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class TemporarilyUnavailable(IntegrationError):
    """Worth another try, after `retry_after` seconds when the service named them."""

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after


class RateLimited(TemporarilyUnavailable):
    """We asked too often; asking again before `retry_after` makes it worse."""


class RequestRejected(IntegrationError):
    """The request itself is refused; sending it again changes nothing."""


class SymbolUnavailable(RequestRejected):
    """The exchange does not know the asset, or lists it no longer."""


class ObjectNotFound(RequestRejected):
    """Nothing is stored under the key."""


class AuthenticationFailed(IntegrationError):
    """The key is missing, wrong, disabled, or lacks a permission."""


class InsufficientCredits(IntegrationError):
    """The account behind the key cannot pay."""


class ReplyTooLarge(IntegrationError):
    """The reply passed its size limit and was cut off; `beginning` is how it started."""

    def __init__(self, message: str, *, beginning: str = "") -> None:
        super().__init__(message)
        self.beginning = beginning
