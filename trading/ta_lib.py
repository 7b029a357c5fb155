"""TA-Lib, imported as if there were no pandas.

It imports pandas where it finds it, to take series that nobody here has: that would take longer
than all else that the core imports.
"""

import sys

_HIDDEN = "pandas"

if _HIDDEN in sys.modules:
    import talib.abstract
else:
    sys.modules[_HIDDEN] = None  # type: ignore[assignment]  # what makes an import fail
    try:
        import talib.abstract
    finally:
        del sys.modules[_HIDDEN]

__all__ = ["talib"]
