"""The keys of the MongoDB tracker store in `endpoints.yml`."""

from __future__ import annotations

import re
from typing import Any, ClassVar
from urllib.parse import unquote

from pydantic import field_validator, model_validator

from tracker_store_async.settings import Name, Secret, StoreConfig, merge_url_parts

_USER = re.compile(
    r"^mongodb(?:\+srv)?://(?:(?P<username>[^:@/]*)(?::(?P<password>.*))?@)?"
)


class MongoConfig(StoreConfig):
    """Rasa's keys (`MongoTrackerStore` of 3.6.21).

    Attributes:
        host: MongoDB URL (`mongodb://` or `mongodb+srv://`), or a host name.
        db: Name of the database.
        username: Name to log in with.
        password: Password to log in with.
        auth_source: Database that knows the user.
        collection: Name of the collection.
    """

    aliases: ClassVar = {"url": "host"}

    host: Name = "mongodb://localhost:27017"
    db: Name = "rasa"
    username: Name | None = None
    password: Secret | None = None
    auth_source: Name = "admin"
    collection: Name = "conversations"

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
        if "://" in host and not host.startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("must begin with mongodb:// or mongodb+srv://")
        return host

    @model_validator(mode="after")
    def _password_has_user(self) -> MongoConfig:
        if self.password is not None and self.username is None:
            raise ValueError("'password' is given without 'username'")
        return self
