"""Applying rules to the events of one conversation, as plain JSON objects.

First every value that a rule is about is changed where it stands, and noted. Then each
noted value is changed wherever else it stands as a word: the user's name in a message
of the bot, the slot's value in another slot.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from tracker_store_async.keeping.values import HASHED, changed, copied, texts_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracker_store_async.keeping.rules import Rule, Rules

SHORTEST = 3
"""Characters from which a value is looked for elsewhere: `no` stands in any text."""

STRUCTURE = frozenset(
    {
        *("event", "name", "timestamp", "confidence", "policy", "action_name"),
        *("input_channel", "message_id", "event_id", "intent_name"),
    }
)
"""Fields of an event that hold no content; a name of a slot may be anybody's word."""

_NAMES = frozenset(
    {
        *("intent", "intent_ranking", "entity", "role", "group", "extractor"),
        *("processors", "type", "utter_action", "model_id", "assistant_id"),
    }
)
"""Fields within them that hold names of the assistant's own."""


class Scrubber:
    """Applies rules to the events of one conversation.

    Args:
        rules: The rules.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._noted: dict[str, Callable[[str], str]] = {}

    def scrub(self, events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the events as they are to be stored; those that stay are the same.

        Args:
            events: The events, oldest first. They are not changed.
        """
        others = [copied(event) for event in events]
        for event in others:
            self._change_values(event)
        if self._noted:
            elsewhere = self._elsewhere()
            for event in others:
                for name in event.keys() - STRUCTURE:
                    event[name] = _each_text(event[name], elsewhere)
        for event, before in zip(others, events, strict=True):
            _realign(event, before)
        return [b if b == o else o for b, o in zip(events, others, strict=True)]

    # -- where it stands ---------------------------------------------------------------

    def _change_values(self, event: dict[str, Any]) -> None:
        kind = event.get("event")
        parse_data = event.get("parse_data")
        parsed = parse_data if isinstance(parse_data, dict) else {}
        if kind == "slot":
            self._change(event, "value", "slots", event.get("name"))
        for entities in (event.get("entities"), parsed.get("entities")):
            self._change_entities(entities)
        if kind in ("user", "bot"):
            for holder in (event, parsed):
                self._change(holder, "text", "text", kind)
            if kind == "bot":
                self._change(event, "data", "text", kind)
        if kind == "action":
            self._change(event, "action_text", "text", "bot")
        for holder in (event, parsed):
            self._change_metadata(holder.get("metadata"))

    def _change_entities(self, entities: Any) -> None:
        for entity in entities if isinstance(entities, list) else ():
            if isinstance(entity, dict):
                self._change(entity, "value", "entities", entity.get("entity"))

    def _change_metadata(self, metadata: Any) -> None:
        if isinstance(metadata, list):
            for each in metadata:
                self._change_metadata(each)
        if isinstance(metadata, dict):
            for name in list(metadata):
                if not self._change(metadata, name, "metadata", name):
                    self._change_metadata(metadata[name])

    def _change(
        self, holder: dict[str, Any], field: str, target: Any, name: object
    ) -> bool:
        """Change one value by the rules about it; return whether there are any."""
        value = holder.get(field)
        rules = [rule for rule in self._rules.of(target) if rule.is_about(name)]
        for rule in rules:
            if rule.pattern is not None:
                value = changed(value, partial(self._part, rule))
            else:
                self._note(value, rule)
                value = changed(value, rule.change)
                break
        if field in holder:
            holder[field] = value
        return bool(rules)

    def _part(self, rule: Rule, text: str) -> str:
        """Change what matches in a text."""
        if rule.pattern is None:
            return text

        def replace(found: re.Match[str]) -> str:
            self._note(found[0], rule)
            return rule.change(found[0])

        return rule.pattern.sub(replace, text)

    # -- and elsewhere -----------------------------------------------------------------

    def _note(self, value: Any, rule: Rule) -> None:
        if not rule.everywhere:
            return
        for text in texts_in(value):
            is_new = rule.change(text) != text and not HASHED.fullmatch(text)
            if len(text.strip()) >= SHORTEST and is_new:
                self._noted.setdefault(text.strip(), rule.change)

    def _elsewhere(self) -> Callable[[str], str]:
        longest_first = sorted(self._noted, key=len, reverse=True)
        noted = "|".join(map(re.escape, longest_first))
        pattern = re.compile(rf"(?<!\w)(?:{noted})(?!\w)")
        return lambda text: pattern.sub(lambda m: self._noted[m[0]](m[0]), text)


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """Change every text, and number as text, but for names of the assistant's own."""
    if isinstance(value, str):
        return change(value)
    # No comprehensions: each takes a further level of the stack for a level of these.
    if isinstance(value, list):
        items = []
        for each in value:
            items.append(_each_text(each, change))  # noqa: PERF401
        return items
    if isinstance(value, dict):
        fields = {}
        for name, each in value.items():
            fields[name] = each if name in _NAMES else _each_text(each, change)
        return fields
    if isinstance(value, int | float) and not isinstance(value, bool):
        other = change(str(value))
        return value if other == str(value) else other
    return value


def _realign(event: dict[str, Any], before: dict[str, Any]) -> None:
    """Drop what only fits the text that was there: tokens, and places of entities."""
    parse_data = event.get("parse_data")
    if not isinstance(parse_data, dict) or event.get("text") == before.get("text"):
        return
    parse_data.pop("text_tokens", None)
    text = str(event.get("text") or "")
    for entities in (parse_data.get("entities"), event.get("entities")):
        for entity in entities if isinstance(entities, list) else ():
            if isinstance(entity, dict) and "start" in entity:
                value = str(entity.get("value"))
                at = text.find(value)
                entity["start"], entity["end"] = (
                    (0, 0) if at < 0 else (at, at + len(value))
                )
