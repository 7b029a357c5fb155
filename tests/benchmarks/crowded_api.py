"""The API with room for more sockets on one session than it has for its users."""

from unittest.mock import patch

import server
from api.realtime import relay

SOCKETS_PER_SESSION = 25

if __name__ == "__main__":
    with patch.object(relay, "WATCHERS_PER_SESSION", SOCKETS_PER_SESSION):
        server.main()
