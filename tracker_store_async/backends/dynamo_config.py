"""The keys of the DynamoDB tracker store in `endpoints.yml`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tracker_store_async.settings import (
    Count,
    Name,
    RequiredDriver,
    Seconds,
    Secret,
    StoreConfig,
    reject_true_and_false,
)

TableName = Annotated[
    Name, Field(min_length=3, max_length=255, pattern=r"^[A-Za-z0-9_.-]+$")
]
Budget = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False),
    BeforeValidator(reject_true_and_false),
]


class DynamoConfig(StoreConfig):
    """Rasa's keys (`DynamoTrackerStore` of 3.6.21), and those of AWS and of the table.

    Attributes:
        table_name: Rasa's table, and the first part of the name of ours.
        region: AWS region of the tables.
        events_table_name: Our table; None is `<table_name>_events`.
        endpoint_url: URL of a DynamoDB other than Amazon's, such as DynamoDB Local.
        aws_access_key_id: Access key; None is what AWS's own settings say.
        aws_secret_access_key: Secret of the access key.
        aws_session_token: Token of temporary credentials.
        credentials_file: JSON file with the keys, in place of the aws_ ones; it is
            read again before they expire, or else every 30 s.
        profile: Profile in AWS's own settings.
        ssl_ca_certs: File with the certificates that the server is checked against.
        billing_mode: `PAY_PER_REQUEST`, or `PROVISIONED` with capacity units.
        read_capacity_units: Capacity of the table and of each index.
        write_capacity_units: Capacity of the table and of each index.
        create_table: Whether a missing table is created on opening.
        read_rasa_data: Whether Rasa's table is looked at.
        delete_rasa_data: Whether Rasa's item is deleted when it is taken over.
        connect_timeout_seconds: Longest time to connect.
        command_timeout_seconds: Longest time that one operation may take.
        retry_budget_seconds: Longest time that one request is repeated for.
        max_pool_connections: Connections that are kept open.
    """

    aliases: ClassVar = {
        "url": "endpoint_url",
        "host": "endpoint_url",
        "region_name": "region",
        "profile_name": "profile",
        "connect_timeout": "connect_timeout_seconds",
        "command_timeout": "command_timeout_seconds",
        "retry_budget": "retry_budget_seconds",
    }

    table_name: TableName = "states"
    region: Name = "us-east-1"
    events_table_name: TableName | None = None
    endpoint_url: Name | None = None
    aws_access_key_id: Secret | None = None
    aws_secret_access_key: Secret | None = None
    aws_session_token: Secret | None = None
    credentials_file: Name | None = None
    profile: Name | None = None
    ssl_ca_certs: Name | None = None
    billing_mode: Literal["PAY_PER_REQUEST", "PROVISIONED"] | None = None
    read_capacity_units: Count | None = None
    write_capacity_units: Count | None = None
    create_table: bool | None = None
    read_rasa_data: bool | None = None
    delete_rasa_data: bool | None = None
    connect_timeout_seconds: Seconds | None = None
    command_timeout_seconds: Seconds | None = None
    retry_budget_seconds: Budget | None = None
    max_pool_connections: Count | None = None

    @field_validator("endpoint_url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return url

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        if (self.aws_access_key_id is None) != (self.aws_secret_access_key is None):
            raise ValueError(
                "'aws_access_key_id' and 'aws_secret_access_key' go together"
            )
        if self.aws_session_token is not None and self.aws_access_key_id is None:
            raise ValueError("'aws_session_token' needs 'aws_access_key_id'")
        if self.profile is not None and self.aws_access_key_id is not None:
            raise ValueError("'profile' and 'aws_access_key_id' contradict each other")
        if self.credentials_file and (self.profile or self.aws_access_key_id):
            raise ValueError(
                "'credentials_file' stands in place of the aws_ keys and 'profile'; "
                "keep one"
            )
        units = (self.read_capacity_units, self.write_capacity_units)
        if any(units) and self.billing_mode != "PROVISIONED":
            raise ValueError("capacity units need 'billing_mode: PROVISIONED'")
        if self.events_table_name == self.table_name:
            raise ValueError("'events_table_name' must differ from 'table_name'")
        return self

    def required_driver(self) -> RequiredDriver | None:
        """Return the driver and the extra that installs it."""
        return RequiredDriver("aioboto3", "dynamo")
