"""NATS JetStream: acknowledged, and recognised by `Nats-Msg-Id` when sent again."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import nats
import nats.errors
from nats.js import api
from nats.js import errors as js_errors

from tracker_store_async import errors
from tracker_store_async.brokers.connected import (
    DEFAULT_TIMEOUT_SECONDS,
    ConnectedBroker,
    explain_connection_error,
)
from tracker_store_async.brokers.envelope import encode_body, headers_of
from tracker_store_async.brokers.nats_client import SecureClient, give_up
from tracker_store_async.brokers.tls import client_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from nats.aio.msg import Msg

    from tracker_store_async.broker import EventMessage

MESSAGE_ID_HEADER = "Nats-Msg-Id"
DEFAULT_NAME = "rasa_core_events"
HEADER_BYTES = 64
"""What a header costs beside its name and value, and the block that holds them."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """One message, encoded."""

    sender_id: str
    body: bytes
    headers: dict[str, str]

    @property
    def size_bytes(self) -> int:
        names = sum(
            len(name) + len(value.encode()) for name, value in self.headers.items()
        )
        return len(self.body) + names + HEADER_BYTES * (len(self.headers) + 1)


@dataclass(slots=True)
class _Link:
    """One connection, and the acknowledgements that are awaited on it.

    Attributes:
        may_be_full: Whether the stream may refuse an event and take a smaller one.
        largest_bytes: What the stream takes at most, or None for what the server does.
        is_proven: Whether an event was acknowledged on it.
        denied: What the server said of rights since anybody began to wait.
    """

    client: SecureClient
    inbox: str = ""
    may_be_full: bool = False
    largest_bytes: int | None = None
    is_proven: bool = False
    denied: Exception | None = None
    sent: int = 0
    waiting: dict[str, asyncio.Future[Msg]] = field(default_factory=dict)

    async def take_reply(self, message: Msg) -> None:
        """Hand an acknowledgement to whoever waits for it."""
        future = self.waiting.pop(message.subject.rpartition(".")[2], None)
        if future is not None and not future.done():
            future.set_result(message)

    async def end(self) -> None:
        """Tell everybody who waits that the connection is lost."""
        for future in self.waiting.values():
            if not future.done():
                future.cancel()
        self.waiting.clear()


class NatsEventBroker(ConnectedBroker[_Link, _Prepared]):
    """Publishes to a JetStream stream, and awaits its acknowledgements.

    Each event carries its id as `Nats-Msg-Id`: what is sent again within the stream's
    duplicate window is stored once. Position, type and `RASA_ENVIRONMENT` are headers.

    Args:
        servers: URLs of servers of one cluster.
        stream: Name of the stream; it is created if no stream takes the subject.
        subject: Subject that events are published to.
        username: User name.
        password: Password.
        token: Token, in place of user name and password.
        use_ssl: Whether to use TLS; a `tls://` URL does anyway.
        ssl_cafile: Certificates to check the server against.
        ssl_certfile: The client's certificate.
        ssl_keyfile: Its private key.
        ssl_check_hostname: Whether the certificate must name the host.
        storage: `file` or `memory`, for a stream that is created.
        replicas: Number of servers that keep such a stream.
        duplicate_window_seconds: How long such a stream recognises a repeat.
        confirm_each_event: Whether an event is sent only once NATS has acknowledged the
            one before it in its conversation. False sends all events of a save
            together, unless the stream may be full (`discard: new` with a limit).
        timeout_seconds: Longest time that one publish takes, reconnecting included.
        connection_attempts: Attempts to connect before `open` gives up.
        retry_delay_in_seconds: Longest pause between two attempts.
    """

    def __init__(
        self,
        servers: Sequence[str] | str = "nats://localhost:4222",
        *,
        stream: str = DEFAULT_NAME,
        subject: str = DEFAULT_NAME,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        use_ssl: bool = False,
        ssl_cafile: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
        ssl_check_hostname: bool = True,
        storage: str = "file",
        replicas: int = 1,
        duplicate_window_seconds: float = 120.0,
        confirm_each_event: bool = True,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        connection_attempts: int = 20,
        retry_delay_in_seconds: float = 5.0,
    ) -> None:
        self._servers = [servers] if isinstance(servers, str) else list(servers)
        super().__init__(
            "NATS",
            ", ".join(
                url.rpartition("@")[2].rpartition("//")[2] for url in self._servers
            ),
            timeout_seconds,
            connection_attempts,
            retry_delay_in_seconds,
            confirm_each_event=confirm_each_event,
        )
        self.stream = stream
        self.subject = subject
        self._login: dict[str, Any] = {
            "user": username,
            "password": password,
            "token": token,
        }
        self._use_ssl = use_ssl or any(url.startswith("tls:") for url in self._servers)
        self._ssl_files = (ssl_cafile, ssl_certfile, ssl_keyfile)
        self._ssl_check_hostname = ssl_check_hostname
        self._layout = api.StreamConfig(
            name=stream,
            subjects=[subject],
            storage=api.StorageType(storage),
            num_replicas=replicas,
            duplicate_window=duplicate_window_seconds,
        )

    # -- the connection ----------------------------------------------------------------

    async def _connect(self) -> _Link:
        link, seen = _Link(SecureClient()), list[Exception]()
        link.client.wants_tls = self._use_ssl

        async def note(error: Exception) -> None:
            seen.append(error)
            if "permissions" in str(error).lower():
                link.denied = error  # and nothing will be acknowledged
                await link.end()

        try:
            await link.client.connect(
                self._servers,
                error_cb=note,
                closed_cb=link.end,
                disconnected_cb=link.end,
                # Its own reconnecting forgets who waits for an acknowledgement.
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=max(1, round(self.timeout_seconds)),
                name="tracker-store-async",
                tls=await self._tls_context(),
                **self._login,
            )
            await self._find_or_create_stream(link)
            link.inbox = link.client.new_inbox()
            await link.client.subscribe(f"{link.inbox}.*", cb=link.take_reply)
        except (nats.errors.NoServersError, nats.errors.TimeoutError) as error:
            # What the server had to say, such as about rights, comes beside it.
            await give_up(link.client)
            raise (seen[-1] if seen else error) from None
        except BaseException:
            await give_up(link.client)
            raise
        return link

    async def _tls_context(self) -> ssl.SSLContext | None:
        if not self._use_ssl:
            return None
        return await asyncio.to_thread(
            client_context, *self._ssl_files, check_hostname=self._ssl_check_hostname
        )

    async def _find_or_create_stream(self, link: _Link) -> None:
        jetstream = link.client.jetstream(timeout=self.timeout_seconds / 2)
        try:
            name = await jetstream.find_stream_name_by_subject(self.subject)
        except js_errors.NotFoundError:
            # Harmless when another process has just created the same one.
            found = await jetstream.add_stream(self._layout)
        else:
            found = await jetstream.stream_info(name)
        layout = found.config
        limits = layout.max_msgs, layout.max_bytes, layout.max_msgs_per_subject
        link.may_be_full = layout.discard == api.DiscardPolicy.NEW and any(
            (limit or -1) > 0 for limit in limits
        )
        if (layout.max_msg_size or -1) > 0:
            link.largest_bytes = layout.max_msg_size

    async def _disconnect(self, link: _Link) -> None:
        await link.end()
        await link.client.close()

    def _is_alive(self, link: _Link) -> bool:
        return bool(link.client.is_connected)

    def _is_careful(self, link: _Link) -> bool:
        """Whether an event waits for the acknowledgement of the one before it."""
        return link.may_be_full or super()._is_careful(link)

    def _explain(self, error: Exception) -> errors.PublishError:
        if isinstance(error, nats.errors.SecureConnWantedError):
            return errors.BrokerAccessError(
                f"{self._where} offers no TLS: leave use_ssl out, or set it up there"
            )
        text = str(error).lower()
        if isinstance(error, nats.errors.AuthorizationError) or "authoriz" in text:
            return errors.BrokerAccessError(
                f"{self._where} refused the user name, password or token"
            )
        if "permissions" in text:
            return errors.BrokerAccessError(
                f"{self._where} does not let this user publish to {self.subject!r} and "
                "manage streams"
            )
        if isinstance(error, nats.errors.SecureConnRequiredError):
            return errors.BrokerAccessError(
                f"{self._where} and we do not agree on TLS: set use_ssl and the ssl_ "
                "files as the server wants them"
            )
        if isinstance(error, js_errors.ServiceUnavailableError):
            return errors.BrokerAccessError(
                f"JetStream is not enabled on {self._where}: start it with -js"
            )
        if isinstance(error, js_errors.APIError):
            return errors.BrokerAccessError(
                f"{self._where} refused to create the stream {self.stream!r} "
                f"(error {error.err_code}): create it by hand, for the subject "
                f"{self.subject!r}"
            )
        return explain_connection_error(self._where, error)

    # -- messages ----------------------------------------------------------------------

    def _prepare(self, message: EventMessage) -> _Prepared:
        headers = {MESSAGE_ID_HEADER: message.message_id, **headers_of(message)}
        return _Prepared(message.sender_id, encode_body(message), headers)

    async def _send(self, link: _Link, batch: Sequence[_Prepared]) -> int:
        futures: list[asyncio.Future[Msg]] = []
        tokens: list[str] = []
        if not link.waiting:
            link.denied = None
        try:
            for prepared in batch:
                link.sent += 1
                tokens.append(str(link.sent))
                future = asyncio.get_running_loop().create_future()
                link.waiting[tokens[-1]] = future
                futures.append(future)
                await link.client.publish(
                    self.subject,
                    prepared.body,
                    reply=f"{link.inbox}.{tokens[-1]}",
                    headers=prepared.headers,
                )
        except (nats.errors.Error, OSError):
            futures[-1].cancel()  # lost; what was sent before it may be confirmed
        try:
            if not self._is_alive(link):
                await link.end()
            await asyncio.wait(futures)
        finally:
            for token in tokens:
                link.waiting.pop(token, None)
        if link.denied is not None:
            raise self._explain(link.denied)
        if any(not each.cancelled() and _is_unheard(each.result()) for each in futures):
            return await self._look_again(link)
        return self._count_confirmed(link, batch, futures)

    async def _look_again(self, link: _Link) -> int:
        """Have the stream found, or created, on a new connection; once is enough.

        Raises:
            BrokerUnavailableError: It was a moment ago.
        """
        if link.is_proven:
            return 0
        await self._forget(link)
        raise errors.BrokerUnavailableError(
            f"no stream of {self._where} takes the subject {self.subject!r}: it was "
            "deleted or has no leader, or JetStream is off"
        )

    def _count_confirmed(
        self,
        link: _Link,
        batch: Sequence[_Prepared],
        futures: Sequence[asyncio.Future[Msg]],
    ) -> int:
        for confirmed, future in enumerate(futures):
            if future.cancelled():
                return confirmed
            if (refusal := self._refusal(future.result())) is not None:
                self._note_refusal(self._taken_after(batch, futures, confirmed))
                raise refusal
            link.is_proven = True
        return len(futures)

    def _taken_after(
        self,
        batch: Sequence[_Prepared],
        futures: Sequence[asyncio.Future[Msg]],
        refused: int,
    ) -> int:
        """Return how many later events of a refused one's conversation were taken."""
        later = [
            future
            for each, future in zip(batch[refused:], futures[refused:], strict=False)
            if each.sender_id == batch[refused].sender_id and not future.cancelled()
        ]
        return sum(self._refusal(each.result()) is None for each in later)

    def _refusal(self, reply: Msg) -> errors.BrokerRefusedError | None:
        """Return what an answer says is wrong, or None for an acknowledgement."""
        answer: dict[str, Any] = json.loads(reply.data)
        if "error" in answer:
            code = answer["error"].get("err_code")
            return errors.BrokerRefusedError(
                f"{self._where} refused the event (error {code}): the stream may be "
                "full or without a leader"
            )
        return None

    def _check(self, link: _Link, batch: Sequence[_Prepared]) -> None:
        """Refuse as a whole what holds an event that is too large."""
        limit, setting = link.client.max_payload, "max_payload there"
        if link.largest_bytes is not None and link.largest_bytes < limit:
            limit, setting = link.largest_bytes, "the stream's max_msg_size"
        largest = max(prepared.size_bytes for prepared in batch)
        if largest > limit:
            raise errors.BrokerRefusedError(
                f"an event of {largest} bytes is larger than {self._where} takes "
                f"({limit} bytes): raise {setting}"
            )


def _is_unheard(reply: Msg) -> bool:
    """Whether the server says that nobody takes what was published."""
    return (reply.headers or {}).get("Status") == "503"
