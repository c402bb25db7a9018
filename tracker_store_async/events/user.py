"""What the user said, and what was understood of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from tracker_store_async.events.base import Event, MisfitError, check_kind
from tracker_store_async.events.json_values import frozen

if TYPE_CHECKING:
    from tracker_store_async.events.tracker_state import TrackerState

EXTERNAL_MESSAGE_PREFIX = "EXTERNAL: "
"""Begins the text of a message that another system, not the user, has triggered."""

_PARSE_DATA_KEYS = ("intent", "entities", "text", "message_id", "metadata")


class UserUttered(Event):
    """The user has said something.

    Attributes:
        text: What was said.
        intent: The predicted intent: `name`, `confidence` and more.
        entities: The entities that were found.
        parse_data: All that was understood, as the NLU part reported it.
        input_channel: The channel the message came through.
        message_id: Id of the message in that channel.
    """

    type_name: ClassVar[str] = "user"
    _written: ClassVar[tuple[tuple[str, str], ...]] = (
        ("text", "text"),
        ("parse_data", "parse_data"),
        ("input_channel", "input_channel"),
        ("message_id", "message_id"),
        ("metadata", "metadata"),
    )

    text: str | None
    parse_data: dict[str, Any]
    input_channel: str | None
    message_id: str | None
    # Rasa stores neither: both are read from the parse data.
    intent: dict[str, Any]
    entities: list[dict[str, Any]]

    def __init__(
        self,
        text: str | None = None,
        intent: dict[str, Any] | None = None,
        entities: list[dict[str, Any]] | None = None,
        parse_data: dict[str, Any] | None = None,
        timestamp: float | None = None,
        input_channel: str | None = None,
        message_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        use_text_for_featurization: bool | None = None,
    ) -> None:
        check_kind(intent, dict, "intent")
        check_kind(entities, list, "entities")
        check_kind(parse_data, dict, "parse_data")
        self._fill(
            timestamp,
            metadata,
            text=text,
            input_channel=input_channel,
            message_id=message_id,
        )
        self.intent = intent or {}
        self.entities = entities or []
        self.parse_data = {
            "intent": self.intent,
            # A copy: what is appended to `entities` later is not stored.
            "entities": self.entities.copy(),
            "text": text,
            "message_id": message_id,
            "metadata": self.metadata,
            **(parse_data or {}),
        }
        if self.use_text_for_featurization is None:
            self.use_text_for_featurization = use_text_for_featurization

    @staticmethod
    def _read(row: dict[str, Any]) -> dict[str, Any]:
        """Take the fields, completing `parse_data` as Rasa's constructor does."""
        parse_data = row.pop("parse_data", None)
        if type(parse_data) is not dict:
            raise MisfitError("parse_data is not an object")
        if tuple(parse_data)[:5] != _PARSE_DATA_KEYS:
            parse_data = _completed(parse_data, row)
        # As in Rasa, a filled list is the one in `parse_data`, an empty one is not.
        intent = parse_data["intent"] or {}
        entities = parse_data["entities"] or []
        if type(intent) is not dict or type(entities) is not list:
            raise MisfitError("the intent is not an object or the entities not a list")
        return {
            "text": row.pop("text", None),
            "parse_data": parse_data,
            "input_channel": row.pop("input_channel", None),
            "message_id": row.pop("message_id", None),
            "intent": intent,
            "entities": entities,
        }

    def share_entities(self) -> None:
        """Make the entities one list with those in `parse_data`, as loading does."""
        if self.entities:
            self.parse_data["entities"] = self.entities

    @property
    def use_text_for_featurization(self) -> bool | None:
        """Whether the text, rather than the intent, predicts the next action.

        Rasa's rule: it is the text where there is no intent, the intent where there is
        no text, and undecided otherwise, until an event decides it.
        """
        if "_use_text" in self.__dict__:
            decided: bool | None = self.__dict__["_use_text"]
            return decided
        has_intent = bool(self.intent.get("name"))
        return None if bool(self.text) == has_intent else not has_intent

    @use_text_for_featurization.setter
    def use_text_for_featurization(self, value: bool | None) -> None:
        self.__dict__["_use_text"] = value

    def leave_undecided(self) -> None:
        """Forget what an event has decided: Rasa's rule counts again."""
        self.__dict__.pop("_use_text", None)

    @property
    def intent_name(self) -> str | None:
        """Name of the predicted intent, or None."""
        return self.intent.get("name")

    @property
    def full_retrieval_intent_name(self) -> str | None:
        """Full name of a retrieval intent, such as `faq/hours`, or None."""
        return self.intent.get("full_retrieval_intent_name")

    @staticmethod
    def empty() -> UserUttered:
        """Return a message that says nothing."""
        # Put together in a fifth of the constructor's time: every tracker and every
        # session begins with it.
        message = object.__new__(UserUttered)
        fields: dict[str, Any] = {
            "text": None,
            "parse_data": {
                "intent": {},
                "entities": [],
                "text": None,
                "message_id": None,
                "metadata": {},
            },
            "input_channel": None,
            "message_id": None,
            "intent": {},
            "entities": [],
            "timestamp": time.time(),
            "metadata": {},
        }
        message._assemble(fields, {})
        return message

    def is_empty(self) -> bool:
        """Whether the message has no text, no intent and no entities."""
        return not self.text and not self.intent_name and not self.entities

    @staticmethod
    def create_external(
        intent_name: str,
        entity_list: list[dict[str, Any]] | None = None,
        input_channel: str | None = None,
    ) -> UserUttered:
        """Return the message of an intent that another system has triggered.

        Args:
            intent_name: The intent.
            entity_list: Entities that come with it.
            input_channel: The channel to answer through.
        """
        return UserUttered(
            text=f"{EXTERNAL_MESSAGE_PREFIX}{intent_name}",
            intent={"name": intent_name},
            entities=entity_list,
            input_channel=input_channel,
            metadata={"is_external": True},
        )

    def apply_to(self, tracker: TrackerState) -> None:
        """Make this the latest message and forget a followup action."""
        tracker.latest_message = self
        tracker.clear_followup_action()

    def _compared(self) -> Any:
        # Rasa compares which keys an entity has, not what they hold.
        keys = [
            sorted(entity) if isinstance(entity, dict) else frozen(entity)
            for entity in self.entities
        ]
        return self.text, self.intent_name, keys

    def __hash__(self) -> int:
        return hash((frozen(self.text), frozen(self.intent_name), len(self.entities)))

    def __str__(self) -> str:
        found = ", ".join(
            f"{entity.get('value')} (Type: {entity.get('entity')}, "
            f"Role: {entity.get('role')}, Group: {entity.get('group')})"
            for entity in _objects(self.entities)
        )
        return (
            f"UserUttered(text: {self.text}, intent: {self.intent_name}"
            f"{f', entities: {found}' if found else ''}"
            f", use_text_for_featurization: {self.use_text_for_featurization})"
        )


def _objects(entities: list[Any] | None) -> list[dict[str, Any]]:
    """Return the entities without what is none: a row may hold anything."""
    return [entity for entity in entities or () if isinstance(entity, dict)]


def _completed(parse_data: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """Return the parse data with Rasa's five keys in front, in Rasa's order."""
    if not row.get("metadata"):
        row["metadata"] = {}
    return {
        "intent": {},
        "entities": [],
        "text": row.get("text"),
        "message_id": row.get("message_id"),
        "metadata": row["metadata"],
        **parse_data,
    }


class DefinePrevUserUtteredFeaturization(Event):
    """Whether an action was predicted from the text or from the intent."""

    type_name: ClassVar[str] = "user_featurization"
    _written: ClassVar[tuple[tuple[str, str], ...]] = (
        ("use_text_for_featurization", "use_text_for_featurization"),
    )

    use_text_for_featurization: bool

    def __init__(
        self,
        use_text_for_featurization: bool,
        timestamp: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._fill(
            timestamp, metadata, use_text_for_featurization=use_text_for_featurization
        )

    @staticmethod
    def _read(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "use_text_for_featurization": row.pop("use_text_for_featurization", None),
        }

    def apply_to(self, tracker: TrackerState) -> None:
        """Tell the latest message, if the bot is waiting for the next one."""
        if tracker.latest_action_name == "action_listen" and tracker.latest_message:
            tracker.latest_message.use_text_for_featurization = (
                self.use_text_for_featurization
            )

    def _compared(self) -> Any:
        return self.use_text_for_featurization

    def __hash__(self) -> int:
        return hash(frozen(self.use_text_for_featurization))

    def __str__(self) -> str:
        return f"DefinePrevUserUtteredFeaturization({self.use_text_for_featurization})"


class EntitiesAdded(Event):
    """Entities were found in the latest message by something other than its parser."""

    type_name: ClassVar[str] = "entities"
    _written: ClassVar[tuple[tuple[str, str], ...]] = (("entities", "entities"),)

    entities: list[dict[str, Any]] | None

    def __init__(
        self,
        entities: list[dict[str, Any]],
        timestamp: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        check_kind(entities, (list, tuple), "entities")
        self._fill(timestamp, metadata, entities=entities)

    @staticmethod
    def _read(row: dict[str, Any]) -> dict[str, Any]:
        entities = row.pop("entities", None)
        if entities is not None and type(entities) is not list:
            raise MisfitError("the entities are not a list")
        return {
            "entities": entities,
        }

    def apply_to(self, tracker: TrackerState) -> None:
        """Add what is new to the latest message, if the bot waits for the next one."""
        if tracker.latest_action_name != "action_listen" or not tracker.latest_message:
            return
        for entity in self.entities or ():
            if entity not in tracker.latest_message.entities:
                tracker.latest_message.entities.append(entity)

    def _compared(self) -> Any:
        return self.entities

    def __hash__(self) -> int:
        return hash(len(self.entities or ()))

    def __str__(self) -> str:
        types = [entity.get("entity") for entity in _objects(self.entities)]
        return f"{type(self).__name__}({types})"
