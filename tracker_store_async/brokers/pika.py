"""RabbitMQ: publisher confirms, durable queues, and reconnecting without loss."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from aio_pika import Connection, DeliveryMode, ExchangeType, Message, exceptions
from aio_pika.connection import make_url
from aiormq.exceptions import ChannelAccessRefused, ConnectionNotAllowed

from tracker_store_async import errors
from tracker_store_async.brokers.connected import (
    DEFAULT_TIMEOUT_SECONDS,
    ConnectedBroker,
    explain_connection_error,
    retrieve,
)
from tracker_store_async.brokers.envelope import (
    ENVIRONMENT,
    POSITION,
    encode_body,
    environment,
)
from tracker_store_async.brokers.pika_limit import SizeLimit
from tracker_store_async.brokers.pika_tls import Files, key_password, tls_of
from tracker_store_async.brokers.tls import client_context
from tracker_store_async.options import check_host
from tracker_store_async.redaction import get_logger

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
    from aiormq.channel import Channel as UnderlayChannel

    from tracker_store_async.broker import EventMessage

logger = get_logger(__name__)

DEFAULT_EXCHANGE = "rasa-exchange"
DEFAULT_QUEUE = "rasa_core_events"
SHORT_TEXT_BYTES = 255
"""Most bytes of a property such as `type`: the length of AMQP's short string."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """One message, encoded."""

    sender_id: str
    message: Message


@dataclass(slots=True)
class _Link:
    """One connection, and the channel on which everything is published.

    Attributes:
        connection: The connection.
        channel: The channel.
        lost: Done once the channel is closed.
        lacks_rights: Whether RabbitMQ closed it for want of rights: the connection is
            as good as before.
        turn: Held while another channel is opened in its place.
    """

    connection: AbstractConnection
    channel: UnderlayChannel
    lost: asyncio.Future[Any]
    lacks_rights: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class PikaEventBroker(ConnectedBroker[_Link, _Prepared]):
    """Publishes to a fanout exchange that copies every event into each queue.

    Exchange, queues and body are Rasa's (`rasa/core/brokers/pika.py` of 3.6.21). A
    publish returns once RabbitMQ has confirmed every event, which for a persistent
    message in a durable queue means that it is on disk. An event that no queue would
    get is an error (`mandatory`).

    Message id, type and `RASA_ENVIRONMENT` are properties (`message_id`, `type`,
    `app_id`), the position is the header `position`.

    Args:
        host: Host name.
        username: User name.
        password: Password; None is that of the user `guest`.
        port: Port; None is 5671 with TLS, else 5672.
        queues: Queues that get every event; they are declared durable.
        should_keep_unpublished_messages: What happens to a message that was not
            confirmed, where `raise_on_failure` is False: kept by the store and sent
            before newer ones, or dropped and counted.
        raise_on_failure: Whether such a message is an error. None leaves both to the
            store's `on_publish_error`, unless the other one is given: then False.
        connection_attempts: Attempts to connect before `open` gives up.
        retry_delay_in_seconds: Longest pause between two attempts.
        exchange_name: The fanout exchange.
        exchange_durable: Whether an exchange that is not there yet is made durable.
            Rasa's is not, and Rasa refuses one that differs: False lets both share it.
        virtual_host: The virtual host.
        use_ssl: Whether to use TLS. None does if `RABBITMQ_SSL_CLIENT_CERTIFICATE` and
            `RABBITMQ_SSL_CLIENT_KEY` are set, as in Rasa.
        ssl_cafile: Certificates to check the server against; `RABBITMQ_SSL_CA_FILE`.
        ssl_certfile: The client's certificate; `RABBITMQ_SSL_CLIENT_CERTIFICATE`.
        ssl_keyfile: Its private key; `RABBITMQ_SSL_CLIENT_KEY`. Its password is in
            `RABBITMQ_SSL_KEY_PASSWORD`.
        ssl_check_hostname: Whether the certificate must name the host.
        ssl_verify: Whether the certificate is checked at all.
        confirm_each_event: Whether an event is sent only once RabbitMQ has confirmed
            the one before it in its conversation. False sends all events of a save
            together: a queue that is full and refuses one (`reject-publish`) may then
            take the next, which consumers see too early.
        timeout_seconds: Longest time that one publish takes, reconnecting included.

    Attributes:
        drops_unpublished: Whether what is not confirmed is dropped, as in Rasa where
            both keys about failures are False: a publish then raises nothing.
        dropped: Number of messages that were dropped so.

    Raises:
        ConfigurationError: TLS keys, or Rasa's environment variables, contradict each
            other.
    """

    def __init__(
        self,
        host: str = "localhost",
        username: str = "guest",
        password: str | None = None,
        port: int | None = None,
        queues: Sequence[str] = (DEFAULT_QUEUE,),
        should_keep_unpublished_messages: bool | None = None,
        raise_on_failure: bool | None = None,
        connection_attempts: int = 20,
        retry_delay_in_seconds: float = 5.0,
        exchange_name: str = DEFAULT_EXCHANGE,
        *,
        exchange_durable: bool = True,
        virtual_host: str = "/",
        use_ssl: bool | None = None,
        ssl_cafile: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
        ssl_check_hostname: bool = True,
        ssl_verify: bool = True,
        confirm_each_event: bool = True,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    ) -> None:
        files = Files(ssl_cafile, ssl_certfile, ssl_keyfile)
        self._use_ssl, self._ssl_files = tls_of(use_ssl, files)
        port = port or (5671 if self._use_ssl else 5672)
        super().__init__(
            "RabbitMQ",
            f"{check_host(host)}:{port}",
            timeout_seconds,
            connection_attempts,
            retry_delay_in_seconds,
            confirm_each_event=confirm_each_event,
        )
        self.queues = tuple([queues] if isinstance(queues, str) else queues)
        self.exchange_name = exchange_name
        self.exchange_durable = exchange_durable
        self.dropped = 0
        self._size_limit = SizeLimit(self._where)
        self._server = (host, port, virtual_host)
        self._login = (username, "guest" if password is None else password)
        self._ssl_check_hostname = ssl_check_hostname
        self._ssl_verify = ssl_verify
        self.drops_unpublished = False
        self._set_policy(should_keep_unpublished_messages, raise_on_failure)

    def _set_policy(self, keep: bool | None, raises: bool | None) -> None:
        """Say what Rasa's two keys mean here, where either is given."""
        if keep is None and raises is None:
            return
        if raises:
            self.on_publish_error = "raise"
        elif keep is None or keep:
            self.on_publish_error = "best_effort"
        else:
            self.drops_unpublished = True

    async def publish_many(self, messages: Sequence[EventMessage]) -> None:
        """Send the events of one save together, and wait for all confirmations.

        Raises:
            PublishError: One was refused, or not confirmed within `timeout_seconds`,
                and they are not to be dropped then.
        """
        try:
            await super().publish_many(messages)
        except errors.PublishError as error:
            if not self.drops_unpublished:
                raise
            self.dropped += len(messages)
            logger.error(
                "Dropped %d events (%d so far), as configured by raise_on_failure and "
                "should_keep_unpublished_messages: %s",
                len(messages),
                self.dropped,
                error,
            )

    # -- the connection ----------------------------------------------------------------

    async def _connect(self) -> _Link:
        host, port, virtual_host = self._server
        username, password = self._login
        connection = Connection(
            make_url(
                host=host,
                port=port,
                login=username,
                password=password,
                virtualhost=virtual_host,
                ssl=self._use_ssl,
            ),
            ssl_context=await self._tls_context(),
            client_properties={"connection_name": "tracker-store-async"},
        )
        try:
            await connection.connect()
            await self._declare(connection)
            return _Link(connection, *await self._open_channel(connection))
        except BaseException:
            # even where there is none yet: a forgotten one closes itself with a warning
            await connection.close()
            raise

    async def _open_channel(
        self, connection: AbstractConnection
    ) -> tuple[UnderlayChannel, asyncio.Future[Any]]:
        """Return a channel to publish on, and what is done once it is closed."""
        channel = await connection.channel(
            publisher_confirms=True, on_return_raises=True
        )
        underlay = cast("UnderlayChannel", await channel.get_underlay_channel())
        lost: asyncio.Future[Any] = asyncio.ensure_future(underlay.closing)
        lost.add_done_callback(retrieve)
        return underlay, lost

    async def _tls_context(self) -> ssl.SSLContext | None:
        if not self._use_ssl:
            return None
        return await asyncio.to_thread(
            client_context,
            *self._ssl_files,
            check_hostname=self._ssl_check_hostname,
            verify=self._ssl_verify,
            key_password=key_password(),
        )

    async def _declare(self, connection: AbstractConnection) -> None:
        exchange = await self._find_exchange(connection)
        async with connection.channel() as channel:
            if exchange is None:
                exchange = await channel.declare_exchange(
                    self.exchange_name,
                    ExchangeType.FANOUT,
                    durable=self.exchange_durable,
                )
            for name in self.queues:
                queue = await channel.declare_queue(name, durable=True)
                await queue.bind(self.exchange_name, "")

    async def _find_exchange(
        self, connection: AbstractConnection
    ) -> AbstractExchange | None:
        """Return the exchange if it is there, durable or not: Rasa may have made it."""
        channel: AbstractChannel = await connection.channel()
        try:
            return await channel.declare_exchange(
                self.exchange_name, ExchangeType.FANOUT, passive=True
            )
        except exceptions.ChannelNotFoundEntity:
            return None  # RabbitMQ has closed the channel along with it
        finally:
            if not channel.is_closed:
                await channel.close()

    async def _disconnect(self, link: _Link) -> None:
        await link.connection.close()

    def _is_alive(self, link: _Link) -> bool:
        if link.connection.is_closed:
            return False
        return link.lacks_rights or not link.channel.is_closed

    def _explain(self, error: Exception) -> errors.PublishError:
        refused = (
            exceptions.ProbableAuthenticationError | exceptions.AuthenticationError
        )
        if isinstance(error, refused) or "ACCESS_REFUSED" in str(error):
            return errors.BrokerAccessError(
                f"{self._where} refused the user name, the password, or the rights of "
                "the user: check username, password and permissions"
            )
        # Asked to open a virtual host, the server closes the connection instead, which
        # aiormq tells in words, by an error of another class in each version.
        closed = "Connection.OpenOk" in str(error)
        if closed or isinstance(error, ConnectionNotAllowed):
            return errors.BrokerAccessError(
                f"{self._where} has no virtual host {self._server[2]!r} for this user"
            )
        if isinstance(error, exceptions.ChannelPreconditionFailed):
            return errors.BrokerAccessError(
                f"{self._where} has a queue or exchange of that name with other "
                f"arguments ({self.exchange_name}, {', '.join(self.queues)}): name "
                "others, or delete it"
            )
        if isinstance(error, exceptions.IncompatibleProtocolError):
            return errors.BrokerAccessError(
                f"{self._where} does not answer in AMQP 0-9-1: check the port, and "
                "whether it wants TLS"
            )
        return explain_connection_error(self._where, error)

    # -- messages ----------------------------------------------------------------------

    def _prepare(self, message: EventMessage) -> _Prepared:
        """Encode one message.

        Raises:
            BrokerRefusedError: One of its properties is longer than AMQP's.
        """
        headers: dict[str, Any] = {POSITION: message.position}
        prepared = Message(
            encode_body(message),
            headers=headers,
            message_id=_short("message id", message.message_id),
            type=_short("type", message.type_name),
            app_id=_short(ENVIRONMENT, environment() or ""),
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT,
        )
        return _Prepared(message.sender_id, prepared)

    async def _send(self, link: _Link, batch: Sequence[_Prepared]) -> int:
        channel, lost = await self._usable_channel(link)
        # Tasks start, and so reach the channel's lock, in the order of their creation.
        sending = [
            asyncio.create_task(self._send_one(channel, prepared.message))
            for prepared in batch
        ]
        for task in sending:
            task.add_done_callback(retrieve)
        try:
            waiting = set(sending)
            while waiting and not lost.done():
                done, _ = await asyncio.wait(
                    {*waiting, lost}, return_when=asyncio.FIRST_COMPLETED
                )
                waiting -= done
        finally:
            # What begins on a connection that has just ended would wait for ever.
            for task in sending:
                task.cancel()
        self._check_rights(link, channel, lost)
        if lost.done() and not lost.cancelled():
            self._size_limit.learn(lost.exception())
        return await self._count_confirmed(link, batch, sending)

    async def _usable_channel(
        self, link: _Link
    ) -> tuple[UnderlayChannel, asyncio.Future[Any]]:
        """Return the channel, or another one if it was closed for want of rights."""
        async with link.turn:
            if link.lacks_rights and link.channel.is_closed:
                link.channel, link.lost = await self._open_channel(link.connection)
                link.lacks_rights = False
            return link.channel, link.lost

    def _check_rights(
        self, link: _Link, channel: UnderlayChannel, lost: asyncio.Future[Any]
    ) -> None:
        """Say that the user has no rights, if that is why the channel was closed.

        Raises:
            BrokerAccessError: It is.
        """
        if not lost.done() or lost.cancelled():
            return
        if not isinstance(lost.exception(), ChannelAccessRefused):
            return
        if link.channel is channel:
            link.lacks_rights = True
        raise errors.BrokerAccessError(
            f"{self._where}: this user may not write to the exchange "
            f"{self.exchange_name!r}: grant the right, by rabbitmqctl set_permissions"
        )

    def _check(self, link: _Link, batch: Sequence[_Prepared]) -> None:
        """Refuse as a whole what holds an event that is known to be too large."""
        self._size_limit.check(prepared.message.body for prepared in batch)

    async def _send_one(self, channel: UnderlayChannel, message: Message) -> None:
        await channel.basic_publish(
            message.body,
            exchange=self.exchange_name,
            properties=message.properties,
            mandatory=True,
            wait=False,
        )

    async def _count_confirmed(
        self,
        link: _Link,
        batch: Sequence[_Prepared],
        sending: Sequence[asyncio.Task[None]],
    ) -> int:
        for confirmed, task in enumerate(sending):
            if not task.done() or task.cancelled():
                return confirmed
            error = task.exception()
            if isinstance(error, exceptions.PublishError | exceptions.DeliveryError):
                self._note_refusal(_taken_after(batch, sending, confirmed))
                if isinstance(error, exceptions.PublishError):
                    await self._forget(link)  # so that the next declares the queues
                raise self._refusal(error)
            if error is not None:
                return confirmed
        return len(sending)

    def _refusal(self, error: Exception) -> errors.PublishError:
        if isinstance(error, exceptions.PublishError):
            return errors.BrokerRefusedError(
                f"{self._where} has no queue for the event: nothing is bound to the "
                f"exchange {self.exchange_name!r}"
            )
        return errors.BrokerRefusedError(
            f"{self._where} refused the event: a queue may be full"
        )


def _taken_after(
    batch: Sequence[_Prepared], sending: Sequence[asyncio.Task[None]], refused: int
) -> int:
    """Return how many later events of a refused one's conversation were confirmed."""
    sender_id = batch[refused].sender_id
    later = zip(batch[refused:], sending[refused:], strict=True)
    return sum(
        _is_confirmed(task) for each, task in later if each.sender_id == sender_id
    )


def _is_confirmed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _short(name: str, text: str) -> str | None:
    """Return the text of a property, or None if it is empty.

    Raises:
        BrokerRefusedError: It is longer than AMQP's short string, or no Unicode text.
    """
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise errors.BrokerRefusedError(
            f"the {name} of an event holds half a surrogate pair, which RabbitMQ does "
            "not take: nothing of it was sent"
        ) from None
    if length > SHORT_TEXT_BYTES:
        raise errors.BrokerRefusedError(
            f"the {name} of an event has {length} bytes and RabbitMQ takes "
            f"{SHORT_TEXT_BYTES} at most: shorten it; nothing of it was sent"
        )
    return text or None
