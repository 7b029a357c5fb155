"""The stylesheet of the public pages."""

from fastapi import APIRouter, Response

from api.pages.stylesheet import STYLESHEET, STYLESHEET_PATH, STYLESHEET_VERSION

router = APIRouter()

_FOR_EVER = "public, max-age=31536000, immutable"


@router.get(STYLESHEET_PATH, include_in_schema=False)
async def read_stylesheet(v: str | None = None) -> Response:
    """Kept for ever under its own version, which changes with every letter of it."""
    caching = _FOR_EVER if v == STYLESHEET_VERSION else "no-cache"
    headers = {"Cache-Control": caching, "X-Content-Type-Options": "nosniff"}
    return Response(STYLESHEET, media_type="text/css", headers=headers)
