"""The certificate that a demo ends with, where its test has earned one."""

import asyncio
import time
from pathlib import Path
from typing import Final

from rich.text import Text

from local.demo_client import DemoFailed, Json
from local.demo_report import alphalab_command
from local.demo_tour import Tour

PATIENCE_SECONDS = 60.0
ASK_AGAIN_SECONDS = 1.0
# The files by the names of their links, and what they end in.
_FILES: Final = {"pdf": ".pdf", "image": ".png", "bundle": ".zip"}


async def show_certificate(tour: Tour, result: Json) -> None:
    """Have the result certified, keep the files, and say where they and the page are.

    Raises `DemoFailed`.
    """
    tour.view.line()
    tour.view.line(Text("Certificate", style="bold"))
    if not result["is_profitable"]:
        tour.view.line("None: only a test that traded, and did not lose, gets one.")
        return
    with tour.view.waiting(lambda: "Computing the test once more, and signing what comes of it"):
        certificate = await _issued(tour, result["id"])
        files = [await _kept(tour, certificate, kind) for kind in _FILES]
    tour.view.step("Code", f"{certificate['verification_code']}, seal: {_seal(certificate)}")
    for file in files:
        tour.view.step("File", str(file))
    tour.view.step("Page", certificate["share_url"])
    tour.view.step("Verify", alphalab_command(tour.directory, "verify", str(files[-1])))


async def _issued(tour: Tour, result_id: str) -> Json:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        answer = await tour.client.post("/api/certificates", {"result_id": result_id})
        if answer["certificate"] is not None:
            certificate: Json = answer["certificate"]
            return certificate
        if time.monotonic() > deadline:
            raise DemoFailed("The certificate takes too long: `alphalab doctor` may say why.")
        await asyncio.sleep(ASK_AGAIN_SECONDS)


async def _kept(tour: Tour, certificate: Json, kind: str) -> Path:
    content = await tour.client.download(f"/api/certificates/{certificate['id']}/{kind}")
    folder = tour.directory.path / "certificates"
    folder.mkdir(exist_ok=True)
    file = folder / f"{certificate['verification_code']}{_FILES[kind]}"
    file.write_bytes(content)
    return file


def _seal(certificate: Json) -> str:
    return str(certificate["seal"]).replace("_", " ")
