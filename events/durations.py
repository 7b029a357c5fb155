"""Spans of time as people read them."""

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def display_duration(seconds: float) -> str:
    """Return the two largest units that matter: `3d 4h`, `4h 23m`, `5m 12s`, `8s`."""
    whole = max(0, int(seconds))
    if whole >= _DAY:
        return f"{whole // _DAY}d {whole % _DAY // _HOUR}h"
    if whole >= _HOUR:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE}m"
    if whole >= _MINUTE:
        return f"{whole // _MINUTE}m {whole % _MINUTE}s"
    return f"{whole}s"


def display_clock(seconds: int) -> str:
    """Return a countdown as clocks show it: `36:45`, `0:07`, `2:05:09`."""
    minutes, rest = divmod(max(0, seconds), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
