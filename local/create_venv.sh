#!/bin/sh
# Creates a virtual environment with the first Python on PATH that this project runs on.
set -eu

for python in ${PYTHON:-} python3.12 python3.11 python3.13 python3 python; do
    if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
        exec "$python" -m venv "$1"
    fi
done
echo "AlphaLab needs Python 3.11, 3.12 or 3.13, and none is on PATH (name one with PYTHON=...)." >&2
exit 1
