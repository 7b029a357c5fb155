"""Writes the OpenAPI document that is committed as `docs/openapi.json`.

python -m api.openapi docs/openapi.json
"""

import sys
from pathlib import Path
from typing import Any

import orjson

from api.app import bare_app


def document() -> dict[str, Any]:
    """Return the document; it depends on nothing but the code."""
    found: dict[str, Any] = bare_app("1").openapi()
    return found


def render() -> bytes:
    return orjson.dumps(document(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(render())
