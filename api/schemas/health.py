"""Answers about the service itself."""

from typing import Literal

from api.schemas.base import Shape

Reachability = Literal["ok", "down"]


class Health(Shape):
    status: Literal["ok"] = "ok"
    service: Literal["alphalab-api"] = "alphalab-api"
    version: str


class Readiness(Shape):
    """`worker` is the number of pollers, or down when there is none."""

    database: Reachability
    redis: Reachability
    temporal: Reachability
    worker: int | Literal["down"]
