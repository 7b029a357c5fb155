"""The pages' stylesheet: a file of its own, for the pages allow no style within them."""

import hashlib
from importlib.resources import files

STYLESHEET = (files("api.pages") / "style.css").read_bytes()
STYLESHEET_VERSION = hashlib.sha256(STYLESHEET).hexdigest()[:16]
STYLESHEET_PATH = "/verify/style.css"
STYLESHEET_HREF = f"{STYLESHEET_PATH}?v={STYLESHEET_VERSION}"
