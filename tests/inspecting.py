"""Calls the inspector of a store in this process, and sees what a browser would."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from tests.conformance.kit import SENDER
from tracker_store_async.ops import inspector
from tracker_store_async.ops.asgi import create_app

if TYPE_CHECKING:
    from tracker_store_async import TrackerStore

TOKEN = "a-token-of-enough-length"
PACKAGE = Path(str(inspector.__file__)).parent


class Client(httpx.AsyncClient):
    """Calls the inspector of a store in this process."""

    def __init__(self, store: TrackerStore, **options: Any) -> None:
        options = {"inspector": True, **options}
        super().__init__(
            transport=httpx.ASGITransport(app=create_app(store, **options)),
            base_url="http://127.0.0.1",
        )

    async def page(self, path: str = "", status: int = 200, **query: Any) -> str:
        """Return the text of a page, which is answered with a status."""
        answer = await self.get(f"/inspector/{path}", params=query or None)
        assert answer.status_code == status, answer.text
        return answer.text

    async def show(self, sender_id: str = SENDER, **query: Any) -> str:
        """Return the page of a conversation."""
        return await self.page("conversation", id=sender_id, **query)


class Seen(HTMLParser):
    """What a browser sees in a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.text += data

    def links(self, start: str) -> list[str]:
        """Return the links that begin so."""
        found = [value for name, value in self.attributes if name == "href"]
        return [link for link in found if link.startswith(start)]


async def tail_of(client: Client, page: str) -> Any:
    """Ask for what came after a page, as its script does."""
    attributes = dict(Seen(page).attributes)
    link = f"{attributes['data-tail']}&after={attributes['data-after']}"
    answer = await client.get(f"/inspector/{link}")
    return answer.json() if answer.content else answer.status_code
