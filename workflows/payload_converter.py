"""Payloads as JSON by pydantic, with what reads them built once per process."""

from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultPayloadConverter,
    JSONPlainPayloadConverter,
)

_JSON = PydanticJSONPlainPayloadConverter()


class SharedPayloadConverter(CompositePayloadConverter):
    """The SDK's own pydantic converter, whose type adapters all instances share.

    Each workflow makes a converter of its own when it starts or is replayed. Building its adapters
    anew took a third of a short replay's processor time. Types that a workflow module defines
    would be kept alive by this: they belong in `workflows.messages`.
    """

    def __init__(self) -> None:
        converters = DefaultPayloadConverter.default_encoding_payload_converters
        super().__init__(
            *(_JSON if isinstance(each, JSONPlainPayloadConverter) else each for each in converters)
        )


DATA_CONVERTER = DataConverter(payload_converter_class=SharedPayloadConverter)
