"""What the database refuses for a reason that a user can act on.

RefusedWrite
├── NameTaken          another living agent of the user has the name
├── UsernameTaken      another user has the name
├── ApiKeyUnknown      the key is not one of the user's
├── CodeTaken          a certificate has this verification code
└── AgentBusy          a test of the agent has not ended yet
"""


class RefusedWrite(ValueError):
    """A write that would break a rule."""


class NameTaken(RefusedWrite):
    """Another living agent of the user has this name."""


class UsernameTaken(RefusedWrite):
    """Another user has this name."""


class ApiKeyUnknown(RefusedWrite):
    """The user has no such key."""


class CodeTaken(RefusedWrite):
    """Another certificate has this verification code."""


class AgentBusy(RefusedWrite):
    """A test of this agent has not ended yet."""
