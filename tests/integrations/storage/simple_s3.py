"""As much of S3 as a bucket's objects need, in memory: objects, uploads in parts, lists."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import count
from typing import Any
from xml.etree import ElementTree

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

BUCKET = "laboratory"
KEY_ID = "a-key-id"
MODIFIED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(slots=True)
class SimpleS3:
    """One bucket; `failure` is answered to everything while it is set."""

    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    failure: int | None = None
    _numbers: Any = field(default_factory=count)

    def clear(self) -> None:
        self.objects.clear()
        self.uploads.clear()
        self.failure = None

    @property
    def app(self) -> Starlette:
        methods = ["GET", "HEAD", "PUT", "POST", "DELETE"]
        return Starlette(routes=[Route(f"/{BUCKET}{{path:path}}", self._answer, methods=methods)])

    async def _answer(self, request: Request) -> Response:
        if f"AWS4-HMAC-SHA256 Credential={KEY_ID}/" not in request.headers["authorization"]:
            return _failed(403, "AccessDenied")
        if self.failure is not None:
            return _failed(self.failure, "Failed")
        key = request.path_params["path"].removeprefix("/")
        if not key:
            return await self._of_bucket(request)
        if "uploads" in request.query_params or "uploadId" in request.query_params:
            return await self._of_upload(request, key)
        return await self._of_object(request, key)

    async def _of_bucket(self, request: Request) -> Response:
        if request.method == "POST":
            tree = ElementTree.fromstring(await request.body())
            names = [str(each.text) for each in tree.iter() if each.tag.endswith("Key")]
            for name in names:
                self.objects.pop(name, None)
            deleted = "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in names)
            return _xml(f"<DeleteResult>{deleted}</DeleteResult>")
        prefix = request.query_params.get("prefix", "")
        entries = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(data)}</Size>"
            f"<LastModified>{MODIFIED_AT:%Y-%m-%dT%H:%M:%S.000Z}</LastModified></Contents>"
            for key, data in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        return _xml(
            f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        )

    async def _of_upload(self, request: Request, key: str) -> Response:
        if "uploads" in request.query_params:
            number = str(next(self._numbers))
            self.uploads[number] = {}
            return _xml(
                "<InitiateMultipartUploadResult>"
                f"<UploadId>{number}</UploadId></InitiateMultipartUploadResult>"
            )
        number = request.query_params["uploadId"]
        if request.method == "DELETE":
            self.uploads.pop(number)
            return Response(status_code=204)
        if request.method == "PUT":
            data = await request.body()
            self.uploads[number][int(request.query_params["partNumber"])] = data
            return Response(headers={"ETag": _etag(data)})
        parts = self.uploads.pop(number)
        data = b"".join(parts[each] for each in sorted(parts))
        self.objects[key] = data
        return _xml(
            f"<CompleteMultipartUploadResult><ETag>{_etag(data)}</ETag>"
            "</CompleteMultipartUploadResult>"
        )

    async def _of_object(self, request: Request, key: str) -> Response:
        if request.method == "PUT":
            self.objects[key] = await request.body()
            return Response(headers={"ETag": _etag(self.objects[key])})
        if request.method == "DELETE":
            self.objects.pop(key, None)
            return Response(status_code=204)
        if key not in self.objects:
            return _failed(404, "NoSuchKey")
        return _object(request, self.objects[key])


def _object(request: Request, data: bytes) -> Response:
    if request.headers.get("if-match", _etag(data)) != _etag(data):
        return _failed(412, "PreconditionFailed")
    headers = {
        "ETag": _etag(data),
        "Last-Modified": format_datetime(MODIFIED_AT, usegmt=True),
    }
    wanted = request.headers.get("range")
    if wanted is None:
        return Response(data, headers=headers)
    first, last = (int(each) for each in wanted.removeprefix("bytes=").split("-"))
    headers["Content-Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
    return Response(data[first : last + 1], status_code=206, headers=headers)


def _etag(data: bytes) -> str:
    return f'"{hash(data):x}"'  # which bytes compute once


def _xml(body: str) -> Response:
    return Response(body, media_type="application/xml")


def _failed(status: int, code: str) -> Response:
    return Response(f"<Error><Code>{code}</Code></Error>", status, media_type="application/xml")
