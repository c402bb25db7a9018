"""Domain files: what is read from them, how several merge, which errors they give."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tracker_store_async.domain import Domain, SessionConfig
from tracker_store_async.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

YAML = """
version: "3.1"
intents: [greet, {inform: {use_entities: [city]}}]
entities: [city, {dish: {roles: [starter, main]}}]
slots:
  name: {type: text, influence_conversation: false, mappings: [{type: custom}]}
  budget: {type: float, initial_value: 25.5, max_value: 500}
  vip: {type: bool, initial_value: false}
  tags: {type: list, initial_value: []}
  mood: {type: categorical, values: [Good, null, BAD]}
  anything: {type: any, initial_value: {a: [1]}}
forms: {booking_form: {required_slots: [name]}}
responses: {utter_greet: [{text: hello}]}
actions: [action_b, {action_a: {send_domain: true}}]
session_config: {session_expiration_time: 5, carry_over_slots_to_new_session: false}
"""


def slot_values(domain: Domain) -> dict[str, object]:
    return {slot.name: slot.value for slot in domain.slots}


def test_yaml_gives_slots_names_and_session() -> None:
    domain = Domain.from_yaml(YAML)
    assert slot_values(domain) == {
        "name": None,
        "budget": 25.5,
        "vip": False,
        "tags": [],
        "mood": None,
        "anything": {"a": [1]},
        "requested_slot": None,
        "session_started_metadata": None,
    }
    assert domain.session_config == SessionConfig(5, False)
    assert {"greet", "inform", "restart"} <= set(domain.intents)
    assert domain.entities == ["city", "dish"]
    assert domain.form_names == ["booking_form"]
    assert list(domain.responses) == ["utter_greet"]
    assert domain.user_actions == ["action_b", "action_a", "utter_greet"]


def test_empty_domain_has_one_slot() -> None:
    domain = Domain.empty()
    assert slot_values(domain) == {"session_started_metadata": None}
    assert domain.is_empty()
    assert domain.session_config == SessionConfig(60, True)
    assert domain.session_config.are_sessions_enabled()
    assert not SessionConfig(0).are_sessions_enabled()


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "slots: {}\nintents: []\n"])
def test_files_that_declare_nothing_are_empty(text: str) -> None:
    assert Domain.from_yaml(text).is_empty()


def test_yaml_is_version_1_2() -> None:
    domain = Domain.from_yaml(
        "slots:\n"
        "  a: {type: text, initial_value: yes}\n"
        "  b: {type: text, initial_value: off}\n"
        "  c: {type: any, initial_value: 010}\n"
        "  d: {type: any, initial_value: true}\n"
    )
    values = slot_values(domain)
    assert [values[name] for name in "abcd"] == ["yes", "off", 10, True]


def test_knowledge_base_action_brings_its_slots() -> None:
    domain = Domain.from_dict({"actions": ["action_query_knowledge_base"]})
    assert [slot.name for slot in domain.slots] == [
        "knowledge_base_listed_objects",
        "knowledge_base_last_object",
        "knowledge_base_last_object_type",
        "session_started_metadata",
    ]


def test_declared_default_slots_are_kept() -> None:
    domain = Domain.from_dict(
        {
            "forms": {"f": {"required_slots": []}},
            "slots": {"requested_slot": {"type": "text", "initial_value": "x"}},
        }
    )
    assert slot_values(domain) == {
        "requested_slot": "x",
        "session_started_metadata": None,
    }


def test_from_dict_does_not_change_its_argument_and_as_dict_is_a_copy() -> None:
    given = {"slots": {"a": {"type": "list", "initial_value": [1]}}}
    domain = Domain.from_dict(given)
    domain.slots[0].value.append(2)
    domain.as_dict()["slots"]["a"]["type"] = "text"
    assert given == {"slots": {"a": {"type": "list", "initial_value": [1]}}}
    assert Domain.from_dict(domain.as_dict()).slots[0].value == [1]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_directory_without_a_domain_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "one.yml", "slots: {}\n")
    write(tmp_path / "d/nlu.yml", "nlu: [{intent: hi}]\n")
    for paths in (tmp_path / "d", [tmp_path / "one.yml", tmp_path / "d"]):
        with pytest.raises(
            ConfigurationError, match=r"directory '.*/d' holds no domain"
        ):
            Domain.load(paths)


def test_load_merges_files_and_directories(tmp_path: Path) -> None:
    one = write(tmp_path / "one.yml", "slots: {a: {type: text, initial_value: é}}\n")
    write(tmp_path / "parts/b.yaml", "slots: {b: {type: bool}}\nintents: [hi]\n")
    write(tmp_path / "parts/deep/c.yml", "forms: {f: {required_slots: [b]}}\n")
    write(tmp_path / "parts/nlu.yml", "nlu: [{intent: hi}]\n")
    write(tmp_path / "parts/list.yml", "[1, 2]\n")
    write(tmp_path / "parts/notes.txt", "slots: [")
    assert set(slot_values(Domain.load(one))) == {"a", "session_started_metadata"}
    domain = Domain.load([str(one), tmp_path / "parts"])
    assert set(slot_values(domain)) == {
        "a",
        "b",
        "requested_slot",
        "session_started_metadata",
    }
    assert "hi" in domain.intents
    assert slot_values(domain)["a"] == "é"


def test_merge_keeps_the_first_unless_told_otherwise(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Domain.from_dict(
        {
            "slots": {"a": {"type": "text"}, "b": {"type": "text"}},
            "intents": ["x", "y"],
            "forms": {"f": {}},
        }
    )
    two = Domain.from_dict(
        {
            "slots": {"a": {"type": "bool"}},
            "intents": [{"x": {"use_entities": []}}, "z"],
            "actions": ["f", "g"],
            "config": {"store_entities_as_slots": False},
            "session_config": {"session_expiration_time": 7},
        }
    )
    merged = one.merge(two)
    assert {slot.name: slot.type_name for slot in merged.slots}["a"] == "text"
    assert {"x", "y", "z"} <= set(merged.intents)
    assert merged.user_actions == ["g"], "an action of the name of a form is the form"
    assert merged.session_config.session_expiration_time == 7
    assert "slots differently, the first one holds: a" in caplog.text
    overridden = one.merge(two, override=True)
    assert {slot.name: slot.type_name for slot in overridden.slots}["a"] == "bool"
    assert overridden.as_dict()["config"] == {"store_entities_as_slots": False}
    assert one.merge(None) is one
    assert one.merge(Domain.empty()) is one
    assert Domain.empty().merge(one) is one


def test_an_action_with_options_merges(tmp_path: Path) -> None:
    """Rasa's `Domain.merge_domain_dicts` compares such an action with no form."""
    (tmp_path / "a.yml").write_text("forms: {f: {required_slots: []}}")
    (tmp_path / "b.yml").write_text("actions: [f, b, {a: {send_domain: true}}]")
    for domain in (
        Domain.load(tmp_path),
        Domain.load([tmp_path / "a.yml", tmp_path / "b.yml"]),
    ):
        assert domain.user_actions == ["b", "a"]
        assert domain.form_names == ["f"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"slots": {"a": {"type": "txt"}}}, "slot 'a'.*'txt'.*text, bool, categorical"),
        ({"slots": {"a": {}}}, "slot 'a' must be a mapping with a `type`.*float, list"),
        ({"slots": {"a": None}}, "slot 'a' must be a mapping"),
        ({"slots": ["a"]}, "section `slots` must be a mapping, not list"),
        ({"slots": {"a": {"type": "text", "auto_fill": True}}}, "'auto_fill'.*valid"),
        ({"slots": {"a": {"type": "no_such_module.X"}}}, "cannot be imported"),
        ({"slots": {"a": {"type": "collections.deque"}}}, "not a slot class"),
        ({"slots": {"a": {"type": "text", "mappings": 3}}}, "slot 'a'.*cannot be"),
        ({"intents": {"greet": 1}}, "section `intents` must be a list, not dict"),
        ({"intents": [3]}, "section `intents` must list names"),
        ({"session_config": {"session_expiration_time": "1"}}, "number of minutes"),
        ({"session_config": {"session_expiration_time": -1}}, "0 or more"),
        (
            {"session_config": {"carry_over_slots_to_new_session": "no"}},
            "true or false",
        ),
    ],
)
def test_wrong_domains_say_where(data: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Domain.from_dict(data)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    broken = write(tmp_path / "broken.yml", "slots: {a: [\n")
    with pytest.raises(ConfigurationError, match=r"broken\.yml.* is not valid YAML"):
        Domain.load(broken)
    with pytest.raises(ConfigurationError, match=r"broken\.yml.* is not valid YAML"):
        Domain.load(tmp_path)
    twice = write(tmp_path / "twice.yml", "slots: {}\nslots: {}\n")
    with pytest.raises(ConfigurationError, match=r"twice\.yml.* is not valid YAML"):
        Domain.load(twice)
    listed = write(tmp_path / "list.yml", "[slots]\n")
    with pytest.raises(ConfigurationError, match=r"list\.yml.*must be a mapping"):
        Domain.load(listed)
    unknown = write(tmp_path / "unknown.yml", "slots: {a: {type: x}}\n")
    with pytest.raises(ConfigurationError, match=r"unknown\.yml.*slot 'a'.*'x'"):
        Domain.load(unknown)
    binary = tmp_path / "binary.yml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=r"binary\.yml.*cannot be read"):
        Domain.load(binary)
    with pytest.raises(ConfigurationError, match=r"missing\.yml' does not exist"):
        Domain.load(tmp_path / "missing.yml")
    with pytest.raises(ConfigurationError, match="no domain path"):
        Domain.load([])
    with pytest.raises(ConfigurationError, match="no domain path"):
        Domain.load("")


def test_importing_the_domain_loads_no_yaml() -> None:
    code = (
        "import sys, tracker_store_async.domain as d; d.Domain.empty(); "
        "sys.exit('ruamel.yaml' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_variables_in_slots_are_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "slots:\n  a:\n    type: text\n    initial_value: ${GREETING} you\n"
        "responses:\n  utter_x:\n  - text: costs ${PRICE}\n"
    )
    file = tmp_path / "domain.yml"
    file.write_text(text)
    monkeypatch.setenv("GREETING", "hi")
    monkeypatch.delenv("PRICE", raising=False)
    for domain in (Domain.from_yaml(text), Domain.load(file)):
        assert domain.slots[0].value == "hi you"
    monkeypatch.delenv("GREETING")
    with pytest.raises(ConfigurationError, match=r"slots\.a\.initial_value.*GREETING"):
        Domain.from_yaml(text)


def test_the_name_of_a_slot_is_text() -> None:
    with pytest.raises(ConfigurationError, match="slot 1 must be text"):
        Domain.from_yaml("slots:\n  1:\n    type: text\n")
