"""What the NATS broker needs of nats-py beyond what that documents, in one place.

`tests/brokers/test_nats.py` tells when nats-py changes any of it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import nats.errors
from nats.aio.client import Client

GIVE_UP_SECONDS = 0.2


class SecureClient(Client):
    """A client that sends its login only through TLS where TLS is asked for.

    The plain one encrypts if the server requires it, and else talks in the clear. It
    has no option, and no hook but this one between the greeting and the login.
    """

    wants_tls = False

    async def _process_info(
        self, info: dict[str, Any], initial_connection: bool = False
    ) -> None:
        if self.wants_tls and not info.get("tls_required"):
            if not info.get("tls_available"):
                raise nats.errors.SecureConnWantedError
            info["tls_required"] = True
        await super()._process_info(info, initial_connection=initial_connection)


async def give_up(client: Client) -> None:
    """Release a client whose connecting has failed.

    After a failed handshake its `close` ends the connection, and then waits for
    something that never comes: so it gets little time.

    Args:
        client: The client.
    """
    with suppress(TimeoutError, OSError, nats.errors.Error):
        async with asyncio.timeout(GIVE_UP_SECONDS):
            await client.close()
