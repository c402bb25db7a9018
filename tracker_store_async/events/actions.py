"""What the bot did, and what it is to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from tracker_store_async.errors import InvalidInputError
from tracker_store_async.events.base import Event, MisfitError, take_name
from tracker_store_async.events.json_values import frozen

if TYPE_CHECKING:
    from tracker_store_async.events.tracker_state import TrackerState


class ActionExecuted(Event):
    """The bot has run an action.

    Attributes:
        action_name: The action, or None if only its text was predicted.
        policy: What predicted it.
        confidence: How sure the policy was, from 0 to 1.
        action_text: The text that was predicted in place of an action.
        hide_rule_turn: Whether machine-learned policies are not to see it.
        unpredictable: Always False; Rasa sets it when it generates training data.
    """

    type_name: ClassVar[str] = "action"
    _written: ClassVar[tuple[tuple[str, str], ...]] = (
        ("name", "action_name"),
        ("policy", "policy"),
        ("confidence", "confidence"),
        ("action_text", "action_text"),
        ("hide_rule_turn", "hide_rule_turn"),
    )
    unpredictable: ClassVar[bool] = False

    action_name: str | None
    policy: str | None
    confidence: float | None
    action_text: str | None
    hide_rule_turn: bool

    def __init__(
        self,
        action_name: str | None = None,
        policy: str | None = None,
        confidence: float | None = None,
        timestamp: float | None = None,
        metadata: dict[str, Any] | None = None,
        action_text: str | None = None,
        hide_rule_turn: bool = False,
    ) -> None:
        if action_name is None and action_text is None:
            raise InvalidInputError(
                "ActionExecuted needs an action_name or an action_text: both are None"
            )
        self._fill(
            timestamp,
            metadata,
            action_name=action_name,
            policy=policy,
            confidence=confidence,
            action_text=action_text,
            hide_rule_turn=hide_rule_turn,
        )

    @staticmethod
    def _read(row: dict[str, Any]) -> dict[str, Any]:
        name = take_name(row)
        text = take_name(row, "action_text")
        if name is None and text is None:
            raise MisfitError("the action has neither name nor text")
        return {
            "action_name": name,
            "policy": row.pop("policy", None),
            "confidence": row.pop("confidence", None),
            "action_text": text,
            "hide_rule_turn": row.pop("hide_rule_turn", False),
        }

    @property
    def stored_name(self) -> Any:
        """The action's name."""
        return self.action_name

    def as_sub_state(self) -> dict[str, str]:
        """Return `{"action_name": ...}`, or `{"action_text": ...}` without a name."""
        if self.action_name:
            return {"action_name": self.action_name}
        return {"action_text": self.action_text}  # type: ignore[dict-item]

    def apply_to(self, tracker: TrackerState) -> None:
        """Make this the latest action and forget a followup action."""
        tracker.set_latest_action(self.as_sub_state())
        tracker.clear_followup_action()

    def _compared(self) -> Any:
        given = {key: item for key, item in self.metadata.items() if item is not None}
        return self.action_name, self.action_text, frozen(given)

    def __hash__(self) -> int:
        return hash(self._compared())

    def __str__(self) -> str:
        return str(self.action_name) or str(self.action_text)

    def __repr__(self) -> str:
        return (
            f"ActionExecuted(action: {self.action_name}, policy: {self.policy}, "
            f"confidence: {self.confidence})"
        )


class ActionExecutionRejected(Event):
    """An action refused to run, as a form does for a message it cannot use.

    Attributes:
        action_name: The action. None in a row that names none, as in Rasa.
        policy: What had predicted it.
        confidence: How sure the policy was, from 0 to 1.
    """

    type_name: ClassVar[str] = "action_execution_rejected"
    _written: ClassVar[tuple[tuple[str, str], ...]] = (
        ("name", "action_name"),
        ("policy", "policy"),
        ("confidence", "confidence"),
    )

    action_name: str
    policy: str | None
    confidence: float | None

    def __init__(
        self,
        action_name: str,
        policy: str | None = None,
        confidence: float | None = None,
        timestamp: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._fill(
            timestamp,
            metadata,
            action_name=action_name,
            policy=policy,
            confidence=confidence,
        )

    @staticmethod
    def _read(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "action_name": take_name(row),
            "policy": row.pop("policy", None),
            "confidence": row.pop("confidence", None),
        }

    @property
    def stored_name(self) -> Any:
        """The action's name."""
        return self.action_name

    def apply_to(self, tracker: TrackerState) -> None:
        """Reject the action."""
        tracker.reject_action(self.action_name)

    def _compared(self) -> Any:
        return self.action_name

    def __hash__(self) -> int:
        return hash(self.action_name)

    def __str__(self) -> str:
        return (
            f"ActionExecutionRejected(action: {self.action_name}, "
            f"policy: {self.policy}, confidence: {self.confidence})"
        )


class FollowupAction(Event):
    """The bot is to run a certain action next.

    Attributes:
        action_name: The action. None in a row that names none, as in Rasa.
    """

    type_name: ClassVar[str] = "followup"
    _written: ClassVar[tuple[tuple[str, str], ...]] = (("name", "action_name"),)

    action_name: str

    def __init__(
        self,
        name: str,
        timestamp: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._fill(timestamp, metadata, action_name=name)

    @staticmethod
    def _read(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "action_name": take_name(row),
        }

    @property
    def stored_name(self) -> Any:
        """The action's name."""
        return self.action_name

    def apply_to(self, tracker: TrackerState) -> None:
        """Make it the next action."""
        tracker.trigger_followup_action(self.action_name)

    def _compared(self) -> Any:
        return self.action_name

    def __hash__(self) -> int:
        return hash(self.action_name)

    def __str__(self) -> str:
        return f"FollowupAction(action: {self.action_name})"


class ActionReverted(Event):
    """The latest action, and what it did, is undone."""

    type_name: ClassVar[str] = "undo"

    def __init__(
        self, timestamp: float | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(timestamp, metadata)

    def apply_to(self, tracker: TrackerState) -> None:
        """Compute the state again; the tracker leaves out what is undone."""
        tracker._reset()
        tracker.replay_events()


class SlotSet(Event):
    """A slot was given a value.

    Attributes:
        key: Name of the slot. None in a row that names none, as in Rasa.
        value: Its new value.
    """

    type_name: ClassVar[str] = "slot"
    _written: ClassVar[tuple[tuple[str, str], ...]] = (
        ("name", "key"),
        ("value", "value"),
    )

    key: str
    value: Any = None

    def __init__(
        self,
        key: str,
        value: Any = None,
        timestamp: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._fill(timestamp, metadata, key=key, value=value)

    @staticmethod
    def _read(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "key": take_name(row),
            "value": row.pop("value", None),
        }

    @property
    def stored_name(self) -> Any:
        """The slot's name."""
        return self.key

    def apply_to(self, tracker: TrackerState) -> None:
        """Set the slot."""
        tracker._set_slot(self.key, self.value)

    def _compared(self) -> Any:
        return self.key, self.value

    def __hash__(self) -> int:
        try:
            return hash((self.key, self.value))
        except TypeError:  # a list or dict; equal ones are equally long
            return hash((self.key, len(self.value)))

    def __repr__(self) -> str:
        return f"SlotSet(key: {self.key})"


class AllSlotsReset(Event):
    """All slots have their initial values again."""

    type_name: ClassVar[str] = "reset_slots"

    def __init__(
        self, timestamp: float | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(timestamp, metadata)

    def apply_to(self, tracker: TrackerState) -> None:
        """Reset the slots."""
        tracker._reset_slots()
