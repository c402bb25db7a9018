"""`prune`, `delete` and `anonymise`: the rules, and the commands."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.command import error_of, output_of, run, save
from tracker_store_async import (
    DialogueStateTracker,
    InMemoryTrackerStore,
    SQLTrackerStore,
    errors,
)
from tracker_store_async.events import (
    ActionExecuted,
    BotUttered,
    SessionStarted,
    SlotSet,
    UserUttered,
)
from tracker_store_async.keeping import Retention, anonymise, prune
from tracker_store_async.keeping.durations import seconds_of
from tracker_store_async.keeping.rules import load_rules, rules_from
from tracker_store_async.keeping.scrubbing import Scrubber
from tracker_store_async.keeping.values import Hash, Mask

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86400.0
KEY = "0123456789abcdef"


def talk(sender_id: str, *texts: str, user_id: str | None = None) -> Any:
    """Return a tracker with a session for each text."""
    events: list[Any] = []
    for text in texts:
        events += [ActionExecuted("action_session_start"), SessionStarted()]
        events += [UserUttered(text), BotUttered(f"you said {text}")]
    tracker = DialogueStateTracker.from_events(sender_id, events)
    tracker.user_id = user_id
    return tracker


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """A directory with `chats.db`, in which `old` was saved a year ago."""
    save(
        tmp_path / "chats.db",
        talk("alice", "one", "two", "three", user_id="u-1"),
        talk("bob", "hello"),
        talk("carol", "good day", user_id="u-1"),
        talk("old", "long ago", "then"),
    )

    async def age() -> None:
        async with SQLTrackerStore(db=str(tmp_path / "chats.db")) as store:
            connector = store._operations
            assert connector is not None
            async with connector.connection() as conn:
                moment = time.time() - 365 * DAY
                await conn.exec_driver_sql(
                    "UPDATE conversations SET created_at = ?, updated_at = ? "
                    "WHERE sender_id = 'old'",
                    (moment, moment),
                )
                await conn.commit()

    asyncio.run(age())
    return tmp_path


def ids(chats: Path) -> list[str]:
    return output_of("keys", "--db", "chats.db", cwd=chats)


# -- values and rules ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "masked"),
    [
        (Mask(), "*****"),
        (Mask(keep_left=1), "h****"),
        (Mask(keep_right=2), "***lo"),
        (Mask(1, 1, "#"), "h###o"),
        (Mask(3, 2), "*****"),  # nothing would be hidden
        (Mask(9, 9), "*****"),
    ],
)
def test_a_mask_keeps_ends(mask: Mask, masked: str) -> None:
    assert mask("hello") == masked
    assert mask(masked) == masked


def test_a_hash_is_keyed_stable_and_not_hashed_again() -> None:
    change = Hash(KEY.encode())
    once = change("hello")
    assert once.startswith("hmac:")
    assert len(once) == 37
    assert change("hello") == once == change(once)
    assert change("hellp") != once != Hash(b"another key of 16")("hello")
    assert KEY not in repr(change)
    # a text that some front end has cut in the middle of an emoji
    assert change("hello \ud83d") == change("hello \ud83d") != change("hello \ud83e")


def user_becomes(**change: Any) -> dict[str, Any]:
    return {"rules": [{"user_id": True, **change}]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "list under `rules`"),
        ({"rules": []}, "no rule"),
        ({"rules": [{}]}, "must name one of"),
        ({"rules": [{"slots": "a", "text": "all", "action": "mask"}]}, "must name one"),
        ({"rules": [{"slots": ["a"]}]}, "mask, hash or replace"),
        ({"rules": [{"slots": ["a"], "action": "hash"}]}, "needs a `secret`"),
        ({"rules": [{"slots": [1], "action": "mask"}]}, "list of names"),
        ({"rules": [{"text": "me", "action": "mask"}]}, "user, bot or all"),
        ({"rules": [{"slots": "a", "action": "mask", "keep_left": -1}]}, "0 or more"),
        ({"rules": [{"slots": "a", "action": "mask", "with": "x"}]}, "cannot have"),
        ({"rules": [{"slots": "a", "action": "mask", "pattern": "x"}]}, "cannot have"),
        ({"rules": [{"text": "all", "pattern": "(", "action": "mask"}]}, "no pattern"),
        ({"secret": "me", "rules": [{}]}, "never the secret"),
        ({"secret": {"env": "NO_SUCH"}, "rules": [{}]}, "'NO_SUCH' is not set: it"),
        ({"secret": {"env": "SHORT"}, "rules": [{}]}, "16 bytes"),
        ({"secret": {"file": "/no/such"}, "rules": [{}]}, "cannot be read"),
        ({"rulez": [], "rules": [{}]}, "no key 'rulez'"),
        (user_becomes(action="replace", **{"with": ""}), "rule 1: a user id must not"),
        (
            user_becomes(action="replace", **{"with": "a\0"}),
            "rule 1: .* user id .* NUL",
        ),
        (user_becomes(action="replace", **{"with": "a" * 256}), "rule 1: .* 255"),
        (user_becomes(action="mask", mark="\0"), "rule 1: .* user id .* NUL"),
    ],
)
def test_wrong_rules_are_refused(
    content: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORT", "fifteen letters")
    with pytest.raises(errors.ConfigurationError, match=says):
        rules_from(content)


def test_the_secret_comes_from_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HASH_SECRET", KEY)
    (tmp_path / "key").write_text(KEY + "\n")
    file = tmp_path / "rules.yml"
    for secret in ("{env: HASH_SECRET}", f"{{file: {tmp_path / 'key'}}}"):
        file.write_text(f"secret: {secret}\nrules: [{{slots: '*', action: hash}}]\n")
        [rule] = load_rules(file).rules
        assert rule.change("x") == Hash(KEY.encode())("x")
        assert rule.is_about("any")


def scrub(rules: list[dict[str, Any]], *events: dict[str, Any]) -> list[Any]:
    return Scrubber(rules_from({"rules": rules})).scrub(events)


def test_values_are_changed_wherever_they_stand_as_words() -> None:
    slot = {"event": "slot", "name": "Annie", "value": "Ann", "timestamp": 1}
    other = {"event": "bot", "text": "Ann, Annie, Ann's no-Ann", "data": {"x": ["Ann"]}}
    rules = [{"slots": ["Annie"], "action": "replace", "with": "X"}]
    changed = scrub(rules, other, slot)
    assert changed[0]["text"] == "X, Annie, X's no-X"
    assert changed[0]["data"] == {"x": ["X"]}
    assert changed[1] == {**slot, "value": "X"}
    here = scrub([{**rules[0], "everywhere": False}], other, slot)
    assert here[0] is other


def test_short_values_are_changed_in_their_place_alone() -> None:
    slot = {"event": "slot", "name": "sure", "value": "no"}
    text = {"event": "user", "text": "no, no"}
    changed = scrub([{"slots": "*", "action": "mask"}], slot, text)
    assert [changed[0]["value"], changed[1]["text"]] == ["**", "no, no"]


def test_numbers_lists_and_objects_are_changed_within() -> None:
    value = {"a": ["secret", 12345.5, None, True], "b": ""}
    slot = {"event": "slot", "name": "s", "value": value}
    [changed] = scrub([{"slots": "s", "action": "mask"}], slot)
    assert changed["value"] == {"a": ["******", "*******", None, True], "b": ""}
    assert slot["value"] is value


def test_entities_move_with_the_text() -> None:
    entities = [
        {"entity": "name", "value": "Ann", "start": 5, "end": 8},
        {"entity": "town", "value": "Rome", "start": 17, "end": 21},
    ]
    event = {
        "event": "user",
        "text": "I am Ann and from Rome",
        "parse_data": {
            "text": "I am Ann and from Rome",
            "entities": entities,
            "intent": {"name": "Ann"},
            "text_tokens": [[0, 1]],
        },
    }
    rules = [{"entities": ["name"], "action": "replace", "with": "somebody"}]
    [changed] = scrub(rules, event)
    text = changed["parse_data"]["text"]
    assert changed["text"] == text == "I am somebody and from Rome"
    for entity in changed["parse_data"]["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["value"]
    assert "text_tokens" not in changed["parse_data"]
    assert changed["parse_data"]["intent"] == {"name": "Ann"}


def test_whole_texts_are_replaced_by_who_said_them() -> None:
    events = [{"event": "user", "text": "mine"}, {"event": "bot", "text": "theirs"}]
    for who, texts in (("user", ["-", "theirs"]), ("all", ["-", "-"])):
        rules = [{"text": who, "action": "replace", "with": "-"}]
        assert [each["text"] for each in scrub(rules, *events)] == texts


async def test_others_may_append_while_it_is_anonymised() -> None:
    store = InMemoryTrackerStore()
    await store.save(talk("x", "first secret"))
    append = store._rewrite
    count = 0

    async def late(request: Any) -> bool:
        nonlocal count
        count += 1
        if count == 1:
            tracker = await store.retrieve("x")
            assert tracker is not None
            tracker.update(UserUttered("second secret"))
            await store.save(tracker)
        return await append(request)

    store._rewrite = late  # type: ignore[method-assign]
    rules = rules_from(
        {"rules": [{"text": "all", "pattern": "secret", "action": "replace"}]}
    )
    [done] = [each async for each in anonymise(store, rules)]
    assert (done.events, count) == (3, 2)
    assert "secret" not in repr(vars(store))


@pytest.mark.parametrize("when", ["read", "rewritten"])
async def test_one_that_is_taken_up_again_is_not_old_any_more(when: str) -> None:
    """Its listing said so; who talks to it at that moment goes on with what it was."""

    class Busy(InMemoryTrackerStore):
        is_taken_up = False

        async def take_up(self) -> None:
            if not self.is_taken_up:
                self.is_taken_up = True
                await self.save(talk("x", "I am back"))

        async def _read(self, read: Any) -> Any:
            if when == "read" and read.start == 0 and read.last is None:
                await self.take_up()
            return await super()._read(read)

        async def _rewrite(self, request: Any) -> bool:
            await self.take_up()
            return await super()._rewrite(request)

    store = Busy()
    await store.save(talk("x", "secret"))
    store._conversations["x"].updated_at -= 10 * DAY
    rules = rules_from({"rules": [{"text": "all", "action": "replace"}]})
    before = time.time() - DAY
    [done] = [each async for each in anonymise(store, rules, updated_before=before)]
    assert (store.is_taken_up, done.is_changed) == (True, False)
    assert "secret" in str(store._conversations["x"].rows)


async def test_a_lost_answer_is_no_second_change() -> None:
    store = InMemoryTrackerStore()
    tracker = DialogueStateTracker.from_events("x", [SlotSet("name", "Ann")])
    await store.save(tracker)
    rewrite = store._rewrite

    async def lost(request: Any) -> bool:
        await rewrite(request)
        return False

    store._rewrite = lost  # type: ignore[method-assign]
    rules = rules_from({"rules": [{"slots": "*", "action": "mask"}]})
    [done] = [each async for each in anonymise(store, rules)]
    assert done.events == 1


@pytest.mark.parametrize("kind", [list, dict])
async def test_what_is_nested_as_deeply_as_it_is_stored_is_anonymised(
    kind: type,
) -> None:
    """One message would keep all that were said after it from being anonymised."""

    def nested(levels: int) -> Any:
        value: Any = "hello"
        for _ in range(levels):
            value = [value] if kind is list else {"k": value}
        return value

    store = InMemoryTrackerStore()
    tracker = store.init_tracker("alice")
    tracker.update(UserUttered("hello", metadata={"x": nested(497)}))
    tracker.update(SlotSet("deep", nested(494)))
    tracker.update(SlotSet("other", nested(494)))
    tracker.update(BotUttered("hi", {"custom": [float("nan")]}))
    tracker.update(UserUttered(""))
    await store.save(tracker)
    rules = rules_from(
        {
            "rules": [
                {"text": "user", "action": "replace"},
                {"slots": ["deep"], "action": "mask"},
                {"metadata": ["none"], "action": "mask"},
            ]
        }
    )
    assert [done.events async for done in anonymise(store, rules)] == [3]
    [row, *_] = store._conversations["alice"].rows
    assert "hello" not in str(store._conversations["alice"].rows)
    assert "[removed]" in row[1]
    assert [done.events async for done in anonymise(store, rules)] == [0]


async def test_an_event_that_is_no_json_stops_it() -> None:
    store = InMemoryTrackerStore()
    await store.save(talk("x", "text"))
    store._conversations["x"].rows[0] = ("id", "not json")
    rules = rules_from({"rules": [{"text": "all", "action": "replace"}]})
    with pytest.raises(errors.CorruptEventError):
        [each async for each in anonymise(store, rules)]


# -- retention -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90d", 90 * DAY), ("1.5h", 5400), ("2w", 14 * DAY), (" 3m ", 180), ("5s", 5)],
)
def test_ages(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "d", "-3d", "3 days", "1e3s"])
def test_what_is_no_age(text: str) -> None:
    with pytest.raises(errors.InvalidInputError, match="such as 90d"):
        seconds_of(text)


def test_a_retention_has_limits() -> None:
    with pytest.raises(errors.InvalidInputError, match="--older-than"):
        Retention()
    with pytest.raises(errors.InvalidInputError, match="more than 0"):
        Retention(keep_last_events=0)


async def test_what_comes_to_life_meanwhile_stays() -> None:
    store = InMemoryTrackerStore()
    await store.save(talk("x", "one"))
    store._conversations["x"].updated_at = store._conversations["x"].created_at = 5.0
    read = store._read

    async def revived(request: Any) -> Any:
        store._conversations["x"].updated_at = time.time()
        return await read(request)

    store._read = revived  # type: ignore[method-assign]
    cuts = [cut async for cut in prune(store, Retention(older_than_seconds=DAY))]
    assert cuts == [None]
    assert "x" in store._conversations


async def test_what_is_added_to_after_it_was_judged_stays() -> None:
    store = InMemoryTrackerStore()
    await store.save(talk("x", "one"))
    store._conversations["x"].updated_at = store._conversations["x"].created_at = 5.0
    delete = store._delete

    async def late(*request: Any) -> bool:
        tracker = await store.retrieve("x")
        assert tracker is not None
        tracker.update(UserUttered("back again"))
        await store.save(tracker)
        return await delete(*request)

    store._delete = late  # type: ignore[method-assign]
    cuts = [cut async for cut in prune(store, Retention(older_than_seconds=DAY))]
    assert cuts == [None]
    assert store._conversations["x"].version == 5


# -- the commands ----------------------------------------------------------------------


def test_prune_says_and_does_the_same(chats: Path) -> None:
    words = ("prune", "--older-than", "90d", "--db", "chats.db")
    assert output_of(*words, "--dry-run", cwd=chats) == [
        "looked at 4 conversations: would erase 8 events in 1 conversations "
        "(1 of them whole)"
    ]
    assert "old" in ids(chats)
    assert output_of(*words, cwd=chats) == [
        "looked at 4 conversations: erased 8 events in 1 conversations "
        "(1 of them whole)"
    ]
    assert ids(chats) == ["alice", "bob", "carol"]


def test_prune_as_json_goes_on_after_a_cursor(chats: Path) -> None:
    words = ("prune", "--keep-last-sessions", "1", "--db", "chats.db", "--json")
    first, second, _ = output_of(*words, "--dry-run", cwd=chats)
    assert json.loads(first) == {
        "sender_id": "alice",
        "before": 8,
        "events": 8,
        "cursor": "alice",
    }
    rest = output_of(*words, "--after", json.loads(first)["cursor"], cwd=chats)
    assert rest[0] == second
    assert len(rest) == 2


def test_prune_without_a_limit_is_wrong(chats: Path) -> None:
    assert "--older-than" in error_of("prune", "--db", "chats.db", cwd=chats, code=2)


def test_delete_one(chats: Path) -> None:
    words = ("delete", "bob", "--db", "chats.db")
    assert output_of(*words, "--dry-run", cwd=chats) == [
        "would erase conversation 'bob'"
    ]
    assert output_of(*words, cwd=chats) == ["erased conversation 'bob'"]
    assert ids(chats) == ["alice", "carol", "old"]
    assert "there is no conversation 'bob'" in error_of(*words, cwd=chats, code=1)
    save(chats / "chats.db", talk("x" * 200, "hi"))
    lines = output_of("delete", "x" * 200, "--db", "chats.db", cwd=chats)
    assert lines == [f"erased conversation {'x' * 200!r}"], "one line, for scripts"


def test_delete_a_user(chats: Path) -> None:
    words = ("delete", "--user", "u-1", "--db", "chats.db")
    assert len(output_of(*words, "--dry-run", cwd=chats)) == 2
    assert output_of(*words, cwd=chats) == [
        "erased conversation 'alice'",
        "erased conversation 'carol'",
    ]
    assert ids(chats) == ["bob", "old"]
    assert "of user 'u-1'" in error_of(*words, cwd=chats, code=1)
    assert "or a user" in error_of("delete", "--db", "chats.db", cwd=chats, code=2)


def test_anonymise_by_a_file(chats: Path) -> None:
    (chats / "rules.yml").write_text(
        "rules: [{text: all, pattern: two|good, action: mask}]\n"
    )
    words = ("anonymise", "rules.yml", "--db", "chats.db")
    says = "looked at 4 conversations: {} 4 events in 2 conversations"
    assert output_of(*words, "--dry-run", cwd=chats) == [says.format("would change")]
    assert output_of(*words, cwd=chats) == [says.format("changed")]
    shown = "\n".join(
        output_of("show", "alice", "--all-sessions", "--db", "chats.db", cwd=chats)
    )
    assert "you said ***" in shown
    assert "two" not in shown
    for file in chats.glob("chats.db*"):
        assert b"said two" not in file.read_bytes()
    error = error_of("anonymise", "no.yml", "--db", "chats.db", cwd=chats, code=2)
    assert "cannot be read" in error


def test_what_is_interrupted_says_how_to_go_on(
    chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tracker_store_async.keeping.progress.Report.step", stop)
    result = run(
        "prune", "--keep-last-events", "1", "--db", "chats.db", cwd=chats, env={}
    )
    assert result.returncode == 130
    assert "go on with --after alice" in result.stdout


# -- looking after it ------------------------------------------------------------------


def test_optimize_says_what_it_gained(chats: Path) -> None:
    words = ("optimize", "--db", "chats.db")
    for n in range(40):
        save(chats / "chats.db", talk(f"long-{n}", "x" * 20_000))
    for n in range(40):
        output_of("delete", f"long-{n}", "--db", "chats.db", cwd=chats)
    before = (chats / "chats.db").stat().st_size
    planned = "\n".join(output_of(*words, "--dry-run", cwd=chats))
    assert "would do       VACUUM" in planned
    assert (chats / "chats.db").stat().st_size == before
    lines = output_of(*words, cwd=chats)
    assert "does           VACUUM" in lines
    [gained] = [line for line in lines if line.startswith("gained")]
    assert "MiB, takes" in gained
    assert (chats / "chats.db").stat().st_size < before / 10
    assert ids(chats) == ["alice", "bob", "carol", "old"]


def test_stats_as_a_table_and_as_json(chats: Path) -> None:
    lines = output_of("stats", "--db", "chats.db", cwd=chats)
    assert "conversations  4 (2 with a user)" in lines
    assert "events         28 (7.0 a conversation)" in lines
    assert "longest               12  alice" in lines
    [line] = output_of("stats", "--json", "--db", "chats.db", cwd=chats)
    found = json.loads(line)
    assert (found["conversations"], found["events"]) == (4, 28)
    assert sorted(found["begun_per_day"].values()) == [1, 3]
    assert found["size_bytes"] > 0


def test_a_picture_is_drawn(chats: Path) -> None:
    pytest.importorskip("matplotlib")
    output_of("stats", "--plot", "out.png", "--db", "chats.db", cwd=chats)
    assert (chats / "out.png").read_bytes().startswith(b"\x89PNG")
    (chats / "chats.db").rename(chats / "a$_{b$.db")  # no formula
    output_of("stats", "--plot", "b.svg", "--db", "a$_{b$.db", cwd=chats)
    assert (chats / "b.svg").exists()


@pytest.mark.parametrize("name", ["a", "a.foo", "none/a.png"])
def test_a_picture_that_cannot_be_drawn_is_refused_at_once(
    chats: Path, name: str
) -> None:
    pytest.importorskip("matplotlib")
    words = ("stats", "--plot", name, "--db", "chats.db")
    result = run(*words, cwd=chats)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: the ")
    assert not list(chats.glob("a*"))


def test_without_matplotlib_it_says_what_to_install(
    chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    words = ("stats", "--plot", "out.png", "--db", "chats.db")
    error = error_of(*words, cwd=chats, code=2)
    assert "pip install 'tracker-store-async[plot]'" in error
    assert not (chats / "out.png").exists()


def test_days_share_a_bar_where_there_are_many() -> None:
    from datetime import date, timedelta

    from tracker_store_async.keeping.plotting import MOST_BARS, bars_of
    from tracker_store_async.keeping.statistics import Statistics

    found = Statistics()
    for n in range(200):
        found.begun[date(2026, 1, 1) + timedelta(days=n)] = 1
    starts, heights, width = bars_of(found)
    assert (width, sum(heights), starts[0]) == (3, 200, date(2026, 1, 1))
    assert len(starts) == len(heights) <= MOST_BARS
    assert found.growth_per_day(7) == 1.0
