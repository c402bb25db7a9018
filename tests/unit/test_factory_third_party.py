"""Stores that others bring: dotted paths and entry points, sync and async."""

import logging
import textwrap

import pytest

from tracker_store_async.backends.memory import InMemoryTrackerStore
from tracker_store_async.brokers.recording import RecordingBroker
from tracker_store_async.domain import Domain
from tracker_store_async.errors import ConfigurationError, UnknownStoreTypeError
from tracker_store_async.events import SlotSet
from tracker_store_async.factory import (
    create_event_broker,
    create_tracker_store,
    load_tracker_store,
)
from tracker_store_async.wrappers.awaitable import AwaitableTrackerStore

OURS = """
    from tracker_store_async.backends.memory import InMemoryTrackerStore
    from tracker_store_async.store import TrackerStore

    class FileStore(InMemoryTrackerStore):
        def __init__(self, domain, event_broker=None, *, path, host=None, **common):
            super().__init__(domain, event_broker, **common)
            self.path, self.host = path, host

    class NoHost(InMemoryTrackerStore):
        def __init__(self, domain=None, event_broker=None):
            super().__init__(domain, event_broker)

    class NoBroker(InMemoryTrackerStore):
        def __init__(self, domain=None):
            super().__init__(domain)

    class HalfDone(TrackerStore):
        pass

    def make_store(domain, event_broker, size="1"):
        return FileStore(domain, event_broker, path=size)

    async def make_later(domain, event_broker):
        return FileStore(domain, event_broker, path="")

    def make_nothing(domain, event_broker):
        return object()

    class Raising(InMemoryTrackerStore):
        def __init__(self, domain=None, event_broker=None, password=""):
            raise RuntimeError(f"cannot log in with {password}")

    class Refusing(InMemoryTrackerStore):
        def __init__(self, domain=None, event_broker=None):
            super().__init__(domain, event_broker, max_event_history=-1)

    class RaisingBroker:
        def __init__(self, password=""):
            raise RuntimeError(f"cannot log in with {password}")

    class RaisingFromConfig:
        @classmethod
        def from_endpoint_config(cls, config):
            raise RuntimeError(str(config.kwargs))

    NOT_CALLABLE = 1
"""

RASA_LIKE = """
    import json

    class SyncStore:
        def __init__(self, domain, host=None, event_broker=None, **kwargs):
            self.domain, self.event_broker = domain, event_broker
            self.host, self.kwargs = host, kwargs
            self.max_event_history = None
            self.saved = {}

        def save(self, tracker):
            self.saved[tracker.sender_id] = json.dumps(tracker.as_dialogue().as_dict())

        def retrieve(self, sender_id):
            return self.saved.get(sender_id)

        def keys(self):
            return list(self.saved)

    class Careful(SyncStore):
        def __init__(self, domain, host=None, event_broker=None, on_conflict=None):
            super().__init__(domain, host, event_broker)
            self.on_conflict = on_conflict

    class AsyncStore(SyncStore):
        async def save(self, tracker):
            super().save(tracker)

        async def retrieve(self, sender_id):
            return self.saved.get(sender_id)

        async def keys(self):
            return list(self.saved)
"""


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    package = tmp_path / "other_stores"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "ours.py").write_text(textwrap.dedent(OURS))
    (package / "rasa_like.py").write_text(textwrap.dedent(RASA_LIKE))
    (package / "broken.py").write_text("import no_such_package")
    (package / "dividing.py").write_text("PASSWORD = 's3cret'\n1 / 0")
    (package / "raising.py").write_text("raise AttributeError('s3cret')")
    (package / "unfinished.py").write_text("password = 's3cret")
    (package / "lazy.py").write_text(
        "def __getattr__(name):\n    raise AttributeError(name)\n"
        "def __dir__():\n    return ['LazyStore']\n"
    )
    metadata = tmp_path / "other_stores-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: other-stores\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[tracker_store_async.stores]\n"
        "files = other_stores.ours:FileStore\n"
        "made = other_stores.ours:make_store\n"
        "plain = other_stores.rasa_like:SyncStore\n"
        "broken = other_stores.broken:Store\n"
        "gone = other_stores.ours:Gone\n"
        "dividing = other_stores.dividing:Store\n"
        "attribute = other_stores.raising:Store\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    import sys

    for name in [n for n in sys.modules if n.startswith("other_stores")]:
        del sys.modules[name]


def problem(error_class=ConfigurationError, **config):
    with pytest.raises(error_class) as raised:
        create_tracker_store(config)
    return str(raised.value)


class TestOurs:
    @pytest.mark.parametrize(
        "type_name",
        ["other_stores.ours.FileStore", "other_stores.ours:FileStore", "files"],
    )
    def test_subclass_is_used_as_it_is(self, type_name):
        domain, broker = Domain.empty(), RecordingBroker()
        store = create_tracker_store(
            {
                "type": type_name,
                "url": "somewhere",
                "path": "x",
                "max_event_history": "5",
                "on_conflict": "raise",
            },
            domain,
            broker,
        )
        assert type(store).__name__ == "FileStore"
        assert (store.host, store.path) == ("somewhere", "x")
        assert (store.max_event_history, store.on_conflict) == (5, "raise")
        assert store.domain is domain
        assert store.event_broker is broker

    def test_function(self):
        store = create_tracker_store({"type": "made", "size": 3})
        assert store.path == 3

    def test_host_is_another_name_of_url(self):
        config = {"type": "files", "path": "x"}
        assert create_tracker_store(config | {"host": "h"}).host == "h"
        assert "mean the same" in problem(**config, host="h", url="u")

    def test_class_without_a_host(self):
        store = create_tracker_store({"type": "other_stores.ours.NoHost"})
        assert isinstance(store, InMemoryTrackerStore)
        assert problem(type="other_stores.ours.NoHost", url="x") == (
            "tracker_store: NoHost does not accept 'host'"
        )

    def test_class_without_a_broker(self):
        config = {"type": "other_stores.ours.NoBroker"}
        assert create_tracker_store(config).event_broker is None
        with pytest.raises(ConfigurationError, match="does not accept 'event_broker'"):
            create_tracker_store(config, None, RecordingBroker())

    def test_from_a_file(self, tmp_path):
        path = tmp_path / "endpoints.yml"
        path.write_text("tracker_store: {type: other_stores.ours.FileStore, path: x}")
        assert load_tracker_store(path).path == "x"


class TestRasaLike:
    @pytest.mark.parametrize("name", ["SyncStore", "AsyncStore"])
    async def test_it_is_wrapped(self, name):
        store = create_tracker_store(
            {"type": f"other_stores.rasa_like.{name}", "url": "h", "db": 1}
        )
        assert type(store) is AwaitableTrackerStore
        async with store:
            tracker = store.init_tracker("alice")
            tracker.update(SlotSet("city", "Rome"))
            await store.save(tracker)
            assert list(await store.keys()) == ["alice"]
            assert (await store.retrieve("alice")).get_slot("city") == "Rome"

    def test_it_is_called_as_by_rasa(self, monkeypatch):
        wrapped = []
        monkeypatch.setattr(
            "tracker_store_async.wrappers.awaitable.AwaitableTrackerStore",
            lambda store, **options: wrapped.append((store, options)),
        )
        domain, broker = Domain.empty(), RecordingBroker()
        config = {"type": "plain", "url": "h", "db": 1, "record_exp": "5"}
        create_tracker_store(config, domain, broker)
        create_tracker_store({"type": "plain"})
        (with_url, options), (without, _) = wrapped
        assert options == {}
        assert (with_url.host, with_url.domain, with_url.event_broker) == (
            "h",
            domain,
            broker,
        )
        assert with_url.kwargs == {"db": 1, "record_exp": "5"}
        assert without.host is None
        assert isinstance(without.domain, Domain)

    @pytest.mark.parametrize("name", ["plain", "other_stores.rasa_like.SyncStore"])
    def test_options_that_are_ours_go_to_the_wrapper(self, name):
        store = create_tracker_store(
            {
                "type": name,
                "max_event_history": "7",
                "on_conflict": "raise",
                "on_publish_error": "best_effort",
                "save_scope": "latest_session",
                "max_workers": "1",
                "db": 1,
            }
        )
        assert (store.max_event_history, store.on_conflict) == (7, "raise")
        assert store._legacy.kwargs == {"db": 1}
        assert "max_workers: must be a whole number" in problem(
            type=name, max_workers="many"
        )

    def test_option_that_the_class_has_itself_is_its_own(self):
        store = create_tracker_store(
            {"type": "other_stores.rasa_like.Careful", "on_conflict": "shout"}
        )
        assert (store.on_conflict, store._legacy.on_conflict) == ("rebase", "shout")

    def test_broker_is_that_of_the_wrapper(self):
        broker = RecordingBroker()
        store = create_tracker_store({"type": "plain"}, None, broker)
        assert store.event_broker is broker
        assert store._legacy.event_broker is None


class TestErrors:
    def test_typo_in_a_key(self):
        assert problem(type="other_stores.ours.NoHost", pathh="x") == (
            "tracker_store: unknown key 'pathh' for NoHost; "
            "valid keys: audit, cache, encryption, fail_safe, retry, strict"
        )
        assert problem(type="other_stores.ours.NoHost", retrys=True) == (
            "tracker_store: unknown key 'retrys' for NoHost; did you mean 'retry'?"
        )
        assert problem(type="made", sizes="x") == (
            "tracker_store: unknown key 'sizes' for make_store; did you mean 'size'?"
        )

    def test_typo_without_strict(self, caplog):
        with caplog.at_level(logging.WARNING):
            store = create_tracker_store({"type": "made", "sizes": 2, "strict": False})
        assert store.path == "1"
        assert "unknown key 'sizes'" in caplog.text

    def test_missing_key(self):
        assert problem(type="files") == "tracker_store: FileStore needs the key 'path'"

    def test_wrong_common_option(self):
        assert problem(type="files", path="x", max_event_history="many") == (
            "tracker_store.max_event_history: must be a whole number"
        )

    @pytest.mark.parametrize(
        ("type_name", "words"),
        [
            ("other_stores.nowhere.Store", "No module named 'other_stores.nowhere'"),
            ("no_such_module.Store", "No module named 'no_such_module'"),
            ("other_stores.broken.Store", "No module named 'no_such_package'"),
            ("broken", "No module named 'no_such_package'"),
            ("gone", "has no attribute 'Gone'"),
            ("other_stores.ours.FileStor", "did you mean 'FileStore'?"),
            ("other_stores.lazy.LazyStor", "did you mean 'LazyStore'?"),
            (
                "tracker_store_async.InMemoryTrackerStor",
                "did you mean 'InMemoryTrackerStore'?",
            ),
            ("other_stores.ours.NOT_CALLABLE", "has no class 'NOT_CALLABLE'"),
            ("other_stores.ours.", "is not a path to a class"),
            (".ours.FileStore", "is not a path to a class"),
            ("other stores.ours.FileStore", "is not a path to a class"),
            ("filles", "did you mean 'files'?"),
        ],
    )
    def test_type_that_cannot_be_loaded(self, type_name, words):
        text = problem(UnknownStoreTypeError, type=type_name)
        assert words in text
        assert f"type '{type_name}'" in text

    @pytest.mark.parametrize(
        ("type_name", "raised"),
        [
            ("other_stores.dividing.Store", "ZeroDivisionError"),
            ("other_stores.unfinished:Store", "SyntaxError"),
            ("other_stores.raising.Store", "AttributeError"),
            ("dividing", "ZeroDivisionError"),
            ("attribute", "AttributeError"),
        ],
    )
    def test_module_that_raises(self, type_name, raised):
        with pytest.raises(UnknownStoreTypeError) as caught:
            create_tracker_store({"type": type_name})
        text = str(caught.value)
        assert f"type '{type_name}'" in text
        assert text.endswith(f"cannot be imported: its module raises {raised}")
        assert type(caught.value.__cause__).__name__ == raised

    def test_store_that_raises(self):
        with pytest.raises(ConfigurationError) as caught:
            create_tracker_store(
                {"type": "other_stores.ours.Raising", "password": "s3cret"}
            )
        assert str(caught.value) == (
            "tracker_store: other_stores.ours.Raising cannot be made: "
            "it raises RuntimeError"
        )
        assert isinstance(caught.value.__cause__, RuntimeError)

    def test_store_that_refuses_an_option_says_so_itself(self):
        text = problem(type="other_stores.ours.Refusing")
        assert text.startswith("max_event_history must be 1 or more")

    @pytest.mark.parametrize("name", ["RaisingBroker", "RaisingFromConfig"])
    def test_broker_that_raises(self, name):
        with pytest.raises(ConfigurationError) as caught:
            create_event_broker(
                {"type": f"other_stores.ours.{name}", "password": "s3cret"}
            )
        assert "cannot be made: it raises RuntimeError" in str(caught.value)
        assert "s3cret" not in str(caught.value)

    def test_what_is_no_store(self):
        assert problem(type="other_stores.ours.make_nothing").startswith(
            "tracker_store: other_stores.ours.make_nothing returns no store: "
        )

    def test_abstract_store(self):
        text = problem(type="other_stores.ours.HalfDone")
        assert "other_stores.ours.HalfDone does not implement _append, _close," in text

    def test_async_function(self):
        text = problem(type="other_stores.ours.make_later")
        assert "other_stores.ours.make_later is made by an async function" in text
