"""Logins that Vault keeps: read anew, renewed in time, told to nobody."""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("hvac")
pytest.importorskip("asyncpg")
pytest.importorskip("redis")
pytest.importorskip("motor")

from tests.canaries import SECRET
from tests.servers import fresh_database
from tests.servers.tls import Certificates
from tests.sql_databases import append, ids, read
from tests.vault_server import FakeVault, fake_vault, sealed_by_transit
from tracker_store_async import (
    MongoTrackerStore,
    RedisTrackerStore,
    SQLTrackerStore,
    create_tracker_store,
    errors,
    load_tracker_store,
)
from tracker_store_async import vault as vault_module
from tracker_store_async.config import AvailableEndpoints
from tracker_store_async.credentials import Login, ask
from tracker_store_async.secrets_manager import VaultConfig, take_login, vault_config
from tracker_store_async.vault import MIN_LEASE_AGE_SECONDS, Vault, VaultLogin
from tracker_store_async.wrappers.base import WrapperTrackerStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VARIABLES = (
    *("SECRET_MANAGER", "VAULT_HOST", "VAULT_URL", "VAULT_TOKEN", "VAULT_NAMESPACE"),
    *("VAULT_RASA_SECRETS_PATH", "VAULT_TRANSIT_MOUNT_POINT"),
)
PASSWORD = f"s3same-{SECRET}"
FROM_VAULT = {
    name: {"source": "secrets_manager.vault", "secret_key": f"sales_{name}"}
    for name in ("username", "password")
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[FakeVault]:
    with fake_vault() as vault:
        vault.secrets["secret/rasa-secrets"] = {
            "sales_username": "sales",
            "sales_password": PASSWORD,
        }
        yield vault


class Clock:
    """Time that stands still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def client(server: FakeVault, clock: Any = None, **keys: Any) -> Vault:
    """Return a client for the server."""
    section = {"host": server.url, "token": "root", **keys}
    return Vault(vault_config(section), *([clock] if clock else []))


def login(vault: Vault) -> VaultLogin:
    return VaultLogin(vault, "sales_username", "sales_password")


# -- what is written in endpoints.yml --------------------------------------------------


def write_endpoints(folder: Path, server: FakeVault, store: str) -> Path:
    """Write a file as Rasa's documentation does."""
    path = folder / "endpoints.yml"
    path.write_text(
        "secrets_manager:\n"
        "  type: vault\n"
        "  token: root\n"
        f'  url: "{server.url}"\n'
        "  secrets_path: rasa-secrets\n"
        f"tracker_store:\n{store}"
        "  username:\n"
        "    source: secrets_manager.vault\n"
        "    secret_key: sales_username\n"
        "  password:\n"
        "    source: secrets_manager.vault\n"
        "    secret_key: sales_password\n"
    )
    return path


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ("  type: SQL\n  dialect: postgresql\n  url: localhost:5432\n", "sql"),
        ("  type: redis\n  url: localhost\n", "redis"),
        ("  type: mongod\n  url: mongodb://localhost:27017\n", "mongod"),
    ],
)
def test_the_file_that_rasa_documents(
    tmp_path: Path, server: FakeVault, section: str, kind: str
) -> None:
    path = write_endpoints(tmp_path, server, section)
    store: Any = load_tracker_store(path)
    source = {
        SQLTrackerStore: lambda: store._connector.options.password_source,
        RedisTrackerStore: lambda: store._options.password,
        MongoTrackerStore: lambda: store._password_source,
    }[type(store)]()
    assert server.asked == []  # nothing is connected to before the store is used
    assert source() == Login(PASSWORD, "sales")
    assert PASSWORD not in repr(source) + repr(store) + repr(source())
    endpoints = AvailableEndpoints.read_endpoints(path)
    assert endpoints.tracker_store is not None
    assert "root" not in repr(endpoints)
    again = create_tracker_store(endpoints.tracker_store)
    assert type(again) is type(store)


def test_a_store_in_wrappers_and_its_fallback(
    tmp_path: Path, server: FakeVault
) -> None:
    section = {
        "type": "redis",
        **FROM_VAULT,
        "secrets_manager": {"host": server.url, "token": "root"},
        "fail_safe": {
            "fallback": {"type": "sql", "dialect": "postgresql", **FROM_VAULT}
        },
    }
    store: Any = create_tracker_store(section)
    assert isinstance(store, WrapperTrackerStore)
    fallback = store._fallbacks[0]
    while isinstance(fallback, WrapperTrackerStore):
        fallback = fallback._wrapped
    assert fallback._connector.options.password_source().password == PASSWORD


def test_one_of_the_two_may_be_configured(server: FakeVault, tmp_path: Path) -> None:
    manager = {"host": server.url, "token": "root"}

    def source_of(**keys: Any) -> Any:
        section = {"secrets_manager": manager, **keys}
        found = take_login(section, "tracker_store")
        assert found is not None
        return found.arguments()["password"]

    password = FROM_VAULT["password"]
    assert source_of(username="us", password=password)() == Login(PASSWORD)
    user = FROM_VAULT["username"]
    assert source_of(username=user, password=123)() == Login("123", "sales")
    file = tmp_path / "password"
    file.write_text("from a file\n")
    found = source_of(username=user, password_file=str(file))()
    assert found == Login("from a file", "sales")


def store_with_a_source(source: Any, domain: Any = None, event_broker: Any = None):  # type: ignore[no-untyped-def]
    """Make a store of somebody else's, who has a key `source` as well."""
    store = create_tracker_store({"type": "in_memory"})
    store.given = source  # type: ignore[attr-defined]
    return store


def test_others_may_have_a_source_too() -> None:
    section = {"type": f"{__name__}.store_with_a_source", "source": {"source": "x"}}
    store: Any = create_tracker_store(section)
    assert store.given == {"source": "x"}
    with pytest.raises(errors.ConfigurationError, match="secrets_manager"):
        create_tracker_store({"type": "in_memory", "secrets_manager": {}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "dynamo"}, "unknown key"),
        ({"type": "in_memory"}, "unknown key"),
        ({"type": "tests.unit.test_vault.FakeVault"}, "sql, redis and mongod only"),
        ({"host": FROM_VAULT["password"]}, "username and password of the tracker"),
        ({"password": None}, "there is no 'password'"),
        ({"password_file": "/f"}, "keep one"),
        ({"password": {"source": "secrets_manager.aws", "secret_key": "k"}}, "vault'"),
        ({"password": {"source": "secrets_manager.vault"}}, "'secret_key'"),
        ({"secrets_manager": None}, "set VAULT_HOST"),
        ({"secrets_manager": {"host": "http://h"}}, "VAULT_TOKEN"),
        ({"secrets_manager": {"host": "h", "token": "t"}}, "must be a URL"),
        ({"secrets_manager": {"host": "http://u:pw@h", "token": "t"}}, "no login"),
        ({"secrets_manager": {"host": "http://h", "tokn": "t"}}, "did you mean"),
        ({"secrets_manager": {"type": "aws", "host": "http://h"}}, "vault"),
        (
            {"secrets_manager": {"host": "http://h", "token": "t", "transit_key": "k"}},
            "transit_mount_point",
        ),
    ],
)
def test_what_is_written_wrongly_is_said(change: Any, message: str) -> None:
    section = {
        "type": "redis",
        **FROM_VAULT,
        "secrets_manager": {"host": "http://localhost:1", "token": "t0ken"},
    } | change
    with pytest.raises(errors.TrackerStoreError) as caught:
        create_tracker_store(section)
    assert message in str(caught.value)
    assert "t0ken" not in str(caught.value)


def test_variables_come_before_the_file() -> None:
    section = {
        "url": "http://file",
        "token": "file",
        "secrets_path": "file",
        "namespace": "file",
    }
    variables = {
        "SECRET_MANAGER": "Vault",
        "VAULT_HOST": "http://variable/",
        "VAULT_TOKEN": "variable",
        "VAULT_RASA_SECRETS_PATH": "path",
        "VAULT_TRANSIT_MOUNT_POINT": "transit",
        "VAULT_NAMESPACE": "team",
    }
    config = vault_config(section, variables)
    assert config.token is not None
    assert config.token.get_secret_value() == "variable"
    assert (config.host, config.secrets_path) == ("http://variable", "path")
    assert (config.transit_mount_point, config.namespace) == ("transit", "team")
    assert vault_config(section, {}).secrets_path == "file"
    alone = vault_config(None, {"VAULT_URL": "http://u", "VAULT_TOKEN": "t"})
    assert (alone.host, alone.secrets_path) == ("http://u", "rasa-secrets")
    assert "variable" not in repr(config).replace("http://variable", "")


# -- reading ---------------------------------------------------------------------------


def test_both_versions_of_the_engine_are_read(server: FakeVault) -> None:
    for version in (1, 2):
        held = {"sales_username": f"a{version}", "sales_password": "b"}
        server.secrets[f"kv-{version}/team/rasa"] = held
        keys = {"mount_point": f"kv-{version}", "secrets_path": "team/rasa"}
        found = login(client(server, kv_version=version, **keys))()
        assert found == Login("b", f"a{version}")
    assert "kv-1/team/rasa" in server.asked
    assert "kv-2/data/team/rasa" in server.asked


def test_the_namespace_is_named(server: FakeVault) -> None:
    server.namespace = "team-a"
    with pytest.raises(errors.StoreAccessError):
        login(client(server))()
    assert login(client(server, namespace="team-a"))().password == PASSWORD


def test_a_value_that_transit_has_sealed_is_opened(server: FakeVault) -> None:
    sealed = sealed_by_transit("opened")
    server.secrets["secret/rasa-secrets"]["sales_password"] = sealed
    with pytest.raises(errors.StoreAccessError, match="transit_key"):
        login(client(server, transit_mount_point="transit"))()
    keys = {"transit_mount_point": "transit", "transit_key": "rasa"}
    assert login(client(server, **keys))() == Login("opened", "sales")
    assert server.asked[-1] == "transit/decrypt/rasa"


def test_a_secret_is_read_again_each_time(server: FakeVault) -> None:
    source = login(client(server))
    assert source().password == PASSWORD
    server.secrets["secret/rasa-secrets"]["sales_password"] = "changed"
    assert source().password == "changed"


def test_those_who_ask_together_share_one_answer(server: FakeVault) -> None:
    """Whoever asks while an answer is under way waits for the next, which is shared."""
    together, all_asked = 6, threading.Event()
    ticks = iter(range(1, 1000))

    def clock() -> float:
        now = next(ticks)
        if now == together + 1:  # each has asked, and the first has begun to read
            all_asked.set()
        return now

    server.before_answer = lambda: bool(all_asked.wait(10)) and None
    source = login(client(server, clock))
    found: list[Login] = []
    threads = [
        threading.Thread(target=lambda: found.append(source())) for _ in range(together)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Login(PASSWORD, "sales")] * together
    assert server.asked.count("secret/data/rasa-secrets") == 2


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"token": "other"}, errors.StoreAccessError, "refused the token"),
        ({"secrets_path": "none"}, errors.StoreAccessError, "has nothing at"),
        ({"kv_version": 1}, errors.StoreAccessError, "has nothing at"),
        ({"host": "http://localhost:1"}, errors.StoreUnavailableError, "be reached"),
    ],
)
async def test_what_vault_refuses_is_one_sentence(
    server: FakeVault, change: Any, kind: type[Exception], message: str
) -> None:
    source = login(client(server, **change))
    with pytest.raises(kind, match=message) as caught:
        await ask(source, "password")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert PASSWORD not in str(caught.value)


def test_a_sealed_vault_and_a_missing_key(server: FakeVault) -> None:
    vault = client(server)
    with pytest.raises(errors.StoreAccessError, match="no key 'nobody'"):
        VaultLogin(vault, None, "nobody")()
    server.secrets["secret/rasa-secrets"]["number"] = 5
    with pytest.raises(errors.StoreAccessError, match="no text"):
        VaultLogin(vault, None, "number")()
    server.is_sealed = True
    with pytest.raises(errors.StoreUnavailableError, match="is sealed"):
        login(vault)()


@pytest.mark.parametrize("answer", ["<html>", {"status": "ok"}], ids=["text", "json"])
def test_what_is_between_may_answer_in_place_of_vault(
    server: FakeVault, answer: Any
) -> None:
    """With the code 200, which is no reason to stop renewing the token."""
    server.tokens["short"] = 30.0
    vault = client(server, token="short")
    vault.read()
    genuine, server.answer = server.answer, lambda *_: (200, answer)  # type: ignore
    assert vault.renew() is not None
    with pytest.raises((errors.StoreUnavailableError, errors.StoreAccessError)):
        vault.read()
    server.answer = genuine  # type: ignore
    assert vault.renew() == pytest.approx(20.0)
    assert vault.read()["sales_username"] == "sales"


def test_tls_is_checked(tmp_path: Path) -> None:
    files = Certificates.write(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.server_certificate, files.server_key)
    with fake_vault(context, "0.0.0.0") as server:
        server.secrets["secret/rasa-secrets"] = {"sales_password": "p"}
        source = VaultLogin(
            client(server, ssl_ca_certs=str(files.ca)), None, "sales_password"
        )
        assert source() == Login("p")
        for wrong in (None, str(files.wrong_ca)):
            with pytest.raises(errors.StoreUnavailableError, match="agree on TLS"):
                login(client(server, ssl_ca_certs=wrong))()
        elsewhere = server.url.replace("localhost", "127.0.0.2")
        with pytest.raises(errors.StoreUnavailableError, match="agree on TLS"):
            login(client(server, host=elsewhere, ssl_ca_certs=str(files.ca)))()


def test_a_token_that_had_tls_is_never_sent_without(
    server: FakeVault, tmp_path: Path
) -> None:
    """A standby may lead to the active server, as long as that has TLS, too."""
    files = Certificates.write(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.server_certificate, files.server_key)
    with fake_vault(context) as standby:
        vault = client(standby, ssl_ca_certs=str(files.ca))
        standby.leads_to = server.url
        with pytest.raises(errors.StoreUnavailableError, match="agree on TLS"):
            vault.read()
        assert not server.asked
        with fake_vault(context) as active:
            active.secrets = server.secrets
            standby.leads_to = active.url
            assert vault.read()["sales_password"] == PASSWORD


async def test_the_loop_goes_on_while_vault_is_asked(server: FakeVault) -> None:
    released = threading.Event()
    server.before_answer = lambda: bool(released.wait(10)) and None
    asking = asyncio.create_task(ask(login(client(server)), "password"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not asking.done()
    released.set()
    assert (await asking).password == PASSWORD


# -- leases ----------------------------------------------------------------------------


def leasing(server: FakeVault, clock: Clock) -> VaultLogin:
    numbers = iter(range(100))
    server.leased["database/creds/assistant"] = lambda: {
        "username": f"v-{next(numbers)}",
        "password": "p",
    }
    keys = {"mount_point": "database", "secrets_path": "creds/assistant"}
    vault = client(server, clock, kv_version=1, **keys)
    return VaultLogin(vault, "username", "password")


def test_a_login_of_a_lease_is_kept_and_replaced_in_time(server: FakeVault) -> None:
    clock = Clock()
    source = leasing(server, clock)
    assert [source().username, source().username] == ["v-0", "v-0"]
    clock.now += 2399
    assert source().username == "v-0"
    clock.now += 2
    assert source().username == "v-1"


def test_a_lease_that_was_revoked_is_replaced(server: FakeVault) -> None:
    clock = Clock()
    source = leasing(server, clock)
    assert source().username == "v-0"
    source.forget()  # too early to be a revocation
    assert source().username == "v-0"
    clock.now += MIN_LEASE_AGE_SECONDS
    source.forget()
    assert source().username == "v-1"
    assert source().username == "v-1"


def test_a_lease_is_used_to_its_end_while_vault_is_away(server: FakeVault) -> None:
    """The database takes the login as long as the lease lasts."""
    clock = Clock()
    source = leasing(server, clock)
    assert source().username == "v-0"
    server.is_sealed = True
    clock.now += 2401
    asked = len(server.asked)
    assert [source().username for _ in range(3)] == ["v-0"] * 3
    assert len(server.asked) == asked + 1  # not once for each connection
    clock.now += vault_module.RETRY_SECONDS
    server.is_sealed = False
    assert source().username == "v-1"
    server.is_sealed = True
    clock.now += 3600
    with pytest.raises(errors.StoreUnavailableError):
        source()


def test_a_lease_that_was_revoked_is_not_used_while_vault_is_away(
    server: FakeVault,
) -> None:
    clock = Clock()
    source = leasing(server, clock)
    assert source().username == "v-0"
    server.is_sealed = True
    clock.now += 2401
    source.forget()
    with pytest.raises(errors.StoreUnavailableError):
        source()


# -- the token -------------------------------------------------------------------------


def test_a_token_is_renewed_before_it_expires(server: FakeVault) -> None:
    server.tokens["root"] = 0.3
    source = login(client(server))
    assert source().password == PASSWORD
    for _ in range(2):
        assert server.renewed.wait(10)
        server.renewed.clear()


def test_the_thread_ends_with_the_store(server: FakeVault) -> None:
    server.tokens["root"] = 3600
    vault = client(server)
    login(vault)()
    keeper = vault._keeper
    assert keeper is not None
    assert keeper.daemon
    assert keeper.is_alive()
    del vault
    gc.collect()
    keeper.join(10)
    assert not keeper.is_alive()
    assert not server.renewed.is_set()


def test_a_renewal_that_fails_is_tried_again(
    server: FakeVault, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    vault = client(server, clock)
    login(vault)()
    server.tokens["root"] = 60
    vault._is_looked_up = False
    assert vault._look_up() == pytest.approx(40)
    clock.now += 40
    server.is_sealed = True
    with caplog.at_level(logging.WARNING):
        pauses = [vault.renew(), vault.renew()]
        assert pauses == [vault_module.RETRY_SECONDS] * 2
        server.is_sealed = False
        assert vault.renew() == pytest.approx(40)
        server.is_sealed = True
        clock.now += 61
        assert vault.renew() is None
    told = [getattr(record, "event", None) for record in caplog.records]
    assert told == ["vault_token_failed", "vault_token_back", "vault_token_expired"]
    assert "root" not in caplog.text


@pytest.mark.parametrize(
    ("answer", "event"),
    [
        ({"lease_duration": 0, "renewable": True}, "vault_token_expired"),
        ({"lease_duration": 60, "renewable": False}, "vault_token_expires"),
    ],
)
def test_a_token_at_the_end_of_its_longest_life_is_told(
    server: FakeVault, caplog: pytest.LogCaptureFixture, answer: Any, event: str
) -> None:
    """Each renewal then brings less, until it brings nothing."""
    vault = client(server)
    server.answer = lambda *_: (200, {"auth": answer})  # type: ignore
    assert vault.renew() is None
    assert [getattr(record, "event", None) for record in caplog.records] == [event]


@pytest.mark.parametrize(
    ("ttl", "renewable", "warnings"), [(0, True, 0), (60, False, 1)]
)
def test_other_tokens_are_left_alone(
    server: FakeVault,
    caplog: pytest.LogCaptureFixture,
    ttl: float,
    renewable: bool,
    warnings: int,
) -> None:
    server.tokens["root"], server.renewable = ttl, renewable
    vault = client(server)
    login(vault)()
    login(vault)()
    assert vault._keeper is None
    assert len(caplog.records) == warnings
    assert server.asked.count("auth/token/lookup-self") == 1


def test_a_token_in_a_file_is_read_again(server: FakeVault, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("root\n")
    config = VaultConfig(host=server.url, token_file=str(file))
    source = VaultLogin(Vault(config), None, "sales_password")
    assert source().password == PASSWORD
    server.tokens = {"next": 60}
    file.write_text("next\n")
    assert source().password == PASSWORD
    assert "auth/token/lookup-self" not in server.asked


# -- a rotation, on real servers -------------------------------------------------------


@contextmanager
def role(server: Any, password: str) -> Iterator[str]:
    """Give PostgreSQL a role with a name of its own, and drop it."""
    name = f"tracker_store_test_{secrets.token_hex(6)}"
    server.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'", "postgres")
    try:
        yield name
    finally:
        server.execute(f"DROP OWNED BY {name}", "postgres")
        server.execute(f"DROP ROLE {name}", "postgres")


async def survives(store: Any) -> list[str]:
    """Return the ids that are read, once the end of the sessions has been noticed."""
    for _ in range(3):
        try:
            return ids(await store._read(read()))
        except errors.StoreUnavailableError:
            await asyncio.sleep(0.01)
    raise AssertionError("the store did not come back")


async def test_a_user_of_postgresql_is_replaced(
    postgresql_server: Any, server: FakeVault
) -> None:
    with (
        fresh_database(postgresql_server) as database,
        role(postgresql_server, "one") as first,
        role(postgresql_server, "two") as second,
    ):
        for name in (first, second):
            grant = f"GRANT ALL ON SCHEMA public TO {name}"
            postgresql_server.execute(grant, database)
            if name == second:
                postgresql_server.execute(f"GRANT {first} TO {second}", database)
        held = server.secrets["secret/rasa-secrets"]
        held |= {"sales_username": first, "sales_password": "one"}
        section = {
            "type": "sql",
            "dialect": "postgresql",
            "db": database,
            "host": postgresql_server.host,
            "port": postgresql_server.port,
            **FROM_VAULT,
            "secrets_manager": {"host": server.url, "token": "root"},
        }
        async with create_tracker_store(section) as store:
            assert await store._append(append(0))
            held |= {"sales_username": second, "sales_password": "two"}
            postgresql_server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE usename = '{first}'",
                database,
            )
            assert len(await survives(store)) == 3
        postgresql_server.execute(f"DROP OWNED BY {second}, {first}", database)


async def test_a_user_of_redis_is_replaced(
    redis_server: Any, server: FakeVault
) -> None:
    first, second = (f"tracker_store_test_{secrets.token_hex(6)}" for _ in "12")
    held = server.secrets["secret/rasa-secrets"]
    held |= {"sales_username": first, "sales_password": "one"}
    section = {
        "type": "redis",
        "host": redis_server.host,
        "port": redis_server.port,
        "key_prefix": secrets.token_hex(6),
        **FROM_VAULT,
        "secrets_manager": {"host": server.url, "token": "root"},
    }
    with redis_server.client() as admin:
        for name, password in ((first, "one"), (second, "two")):
            rights = ("on", f">{password}", "~*", "+@all")
            admin.execute_command("ACL", "SETUSER", name, *rights)
        try:
            async with create_tracker_store(section) as store:
                assert await store._append(append(0))
                held |= {"sales_username": second, "sales_password": "two"}
                admin.execute_command("ACL", "DELUSER", first)  # ends its connections
                assert len(await survives(store)) == 3
                users = {each["user"] for each in admin.client_list()}
                assert second in users
        finally:
            admin.delete(*admin.scan_iter(match=f"*{section['key_prefix']}:*"))
            admin.execute_command("ACL", "DELUSER", first, second)
