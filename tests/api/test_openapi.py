"""The committed document is the one that the code describes."""

from pathlib import Path

from api.openapi import document, render

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"


def test_the_committed_document_is_up_to_date() -> None:
    message = "run: python -m api.openapi docs/openapi.json"

    assert COMMITTED.read_bytes() == render(), message


# What a scanner reads, what people read, and what says as well that nothing was verified.
OTHERWISE = {
    ("/api/ready", "503"),
    ("/verify/{code}", "404"),
    ("/api/certificates/verify/{code}", "404"),
    ("/api/certificates/verify/{code}/bundle", "404"),
}


def test_every_error_has_the_one_shape() -> None:
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and (path, status) not in OTHERWISE:
                    schema = answer["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorBody"}, (method, path)


def test_everything_but_health_and_models_needs_a_token() -> None:
    open_to_all = {
        path
        for path, operations in document()["paths"].items()
        for operation in operations.values()
        if not operation.get("security")
    }

    assert open_to_all == {
        *("/api/health", "/api/ready", "/api/models", "/api/webhooks/clerk"),
        "/api/export/{export_id}/download",  # with a signed link
        *("/api/certificates/verify/{code}", "/api/certificates/verify/{code}/bundle"),
        *("/verify/{code}", "/.well-known/alphalab-certificate-key"),
    }
