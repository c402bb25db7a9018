"""The keys of the DynamoDB tracker store in `endpoints.yml`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from tracker_store_async.settings import Name, StoreConfig


class DynamoConfig(StoreConfig):
    """Rasa's keys (`DynamoTrackerStore` of 3.6.21), and an endpoint of one's own.

    Attributes:
        table_name: Name of the table.
        region: AWS region of the table.
        endpoint_url: URL of a DynamoDB other than Amazon's, such as DynamoDB Local.
    """

    aliases: ClassVar = {
        "url": "endpoint_url",
        "host": "endpoint_url",
        "region_name": "region",
    }

    table_name: Annotated[
        Name, Field(min_length=3, max_length=255, pattern=r"^[A-Za-z0-9_.-]+$")
    ] = "states"
    region: Name = "us-east-1"
    endpoint_url: Name | None = None

    @field_validator("endpoint_url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return url
