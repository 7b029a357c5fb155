"""REST and WebSockets: parses requests, calls services, shapes answers."""

__version__ = "0.1.0"
