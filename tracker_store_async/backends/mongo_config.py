"""The keys of the MongoDB tracker store in `endpoints.yml`."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import unquote

from pydantic import BeforeValidator, field_validator, model_validator

from tracker_store_async.settings import (
    Count,
    Name,
    RequiredDriver,
    Seconds,
    Secret,
    StoreConfig,
    merge_url_parts,
)

_USER = re.compile(
    r"^mongodb(?:\+srv)?://(?:(?P<username>[^:@/]*)(?::(?P<password>.*))?@)?"
)


def _members(value: Any) -> Any:
    """Return a number of members of a replica set, or the name for some of them."""
    is_number = isinstance(value, int) or (isinstance(value, str) and value.isdecimal())
    if isinstance(value, bool) or (is_number and int(value) < 1) or value == "":
        raise ValueError("must be 'majority', a name, or a number from 1 on")
    return int(value) if is_number else value


Members = Annotated[int | str, BeforeValidator(_members)]


class MongoConfig(StoreConfig):
    """Rasa's keys (`MongoTrackerStore` of 3.6.21) and those of the driver and of TLS.

    Attributes:
        host: MongoDB URL (`mongodb://` or `mongodb+srv://`), or a host name.
        db: Name of the database.
        username: Name to log in with.
        password: Password to log in with.
        password_file: File that holds the password; it is read again when the server
            refuses the one that was read before, so that a rotation is survived.
        auth_source: Database that knows the user.
        collection: Name of Rasa's collection, and the beginning of the names of ours.
        driver: `motor`, or `pymongo` for PyMongo's own asyncio client.
        tls: Whether to use TLS; None is what the URL says.
        tls_ca_file: File with the certificates that the server is checked against;
            None takes the system's.
        tls_certificate_key_file: File with the client's certificate and private key.
        tls_certificate_key_file_password: Password of that key.
        tls_allow_invalid_hostnames: Whether the certificate may be for another host.
        pool_size: Most connections to a server.
        pool_timeout_seconds: Longest wait for a free connection.
        connect_timeout_seconds: Longest time to find and reach a server.
        command_timeout_seconds: Longest time that one operation may take.
        write_concern: Members that have a write before it counts.
        journal: Whether they have it in their journal by then.
        delete_rasa_data: Whether Rasa's document of a conversation is removed once it
            was taken over.
        outbox: Whether events are marked with each save and published afterwards.
    """

    aliases: ClassVar = {
        "url": "host",
        "use_ssl": "tls",
        "ssl_ca_certs": "tls_ca_file",
        "pool_timeout": "pool_timeout_seconds",
        "connect_timeout": "connect_timeout_seconds",
        "command_timeout": "command_timeout_seconds",
    }

    host: Name = "mongodb://localhost:27017"
    db: Name = "rasa"
    username: Name | None = None
    password: Secret | None = None
    password_file: Name | None = None
    auth_source: Name = "admin"
    collection: Name = "conversations"
    driver: Literal["motor", "pymongo"] = "motor"
    tls: bool | None = None
    tls_ca_file: Name | None = None
    tls_certificate_key_file: Name | None = None
    tls_certificate_key_file_password: Secret | None = None
    tls_allow_invalid_hostnames: bool | None = None
    pool_size: Count | None = None
    pool_timeout_seconds: Seconds | None = None
    connect_timeout_seconds: Seconds | None = None
    command_timeout_seconds: Seconds | None = None
    write_concern: Members = "majority"
    journal: bool = True
    delete_rasa_data: bool = False
    outbox: bool = False

    @model_validator(mode="before")
    @classmethod
    def _credentials_in_one_place(cls, values: Any) -> Any:
        host = values.get("host") if isinstance(values, dict) else None
        found = _USER.match(host) if isinstance(host, str) else None
        if found is None:
            return values
        parts = {key: unquote(text) for key, text in found.groupdict().items() if text}
        return merge_url_parts(values, parts)

    @field_validator("host")
    @classmethod
    def _is_mongodb(cls, host: str) -> str:
        if "://" not in host and "@" in host:
            raise ValueError("holds a login, so it must begin with mongodb://")
        if "://" in host and not host.startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("must begin with mongodb:// or mongodb+srv://")
        return host

    @model_validator(mode="after")
    def _password_has_user(self) -> MongoConfig:
        for name in ("password", "password_file"):
            if getattr(self, name) is not None and self.username is None:
                raise ValueError(f"'{name}' is given without 'username'")
        if self.password is not None and self.password_file is not None:
            raise ValueError("'password' and 'password_file' say the same; keep one")
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> MongoConfig:
        others = (
            "tls_ca_file",
            "tls_certificate_key_file",
            "tls_allow_invalid_hostnames",
        )
        if self.tls is False and any(getattr(self, name) for name in others):
            raise ValueError("the tls_ keys contradict TLS being switched off")
        if self.tls_certificate_key_file_password and not self.tls_certificate_key_file:
            raise ValueError(
                "'tls_certificate_key_file_password' needs 'tls_certificate_key_file'"
            )
        return self

    def required_driver(self) -> RequiredDriver | None:
        """Return the driver's package and the extra that installs it."""
        return RequiredDriver(self.driver, "mongo")
