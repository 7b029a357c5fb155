"""What certificates and pages are drawn with is installed with them."""

import json
import subprocess
import sys
from pathlib import PurePosixPath

from local.services import PROJECT_ROOT

PACKED = """
import json, os
from setuptools import Distribution
distribution = Distribution()
distribution.parse_config_files(["pyproject.toml"])
command = distribution.get_command_obj("build_py")
command.ensure_finalized()
found = command.get_data_files_without_manifest()
print(json.dumps([os.path.join(source, name) for _, source, _, names in found for name in names]))
"""


def test_fonts_licences_templates_and_styles_are_packed():
    command = [sys.executable, "-W", "ignore", "-c", PACKED]
    told = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    packed = {PurePosixPath(name) for name in json.loads(told.stdout.splitlines()[-1])}

    drawn_with = [
        *(PROJECT_ROOT / "certificates" / "fonts").iterdir(),
        *(PROJECT_ROOT / "api" / "pages" / "templates").iterdir(),
        PROJECT_ROOT / "api" / "pages" / "style.css",
    ]
    assert {PurePosixPath(path.relative_to(PROJECT_ROOT)) for path in drawn_with} <= packed
