"""Replaces itself with a command that ends when its parent ends, however the parent ends.

Run as a script, with nothing but the standard library: `child.py PARENT_PID SIGNAL COMMAND…`.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def _end_with_parent(parent: int, death_signal: int) -> None:
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended before the line above could notice
        sys.exit(1)


if __name__ == "__main__":
    _end_with_parent(int(sys.argv[1]), int(sys.argv[2]))
    os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606  (no shell is wanted)
