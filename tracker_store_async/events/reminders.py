"""Reminders: an intent that is to be triggered at a given time."""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from typing import Any, ClassVar

from tracker_store_async.events.base import Event, MisfitError, check_kind

_SENDER_ID_CONNECTOR = "__sender_id:"


class ReminderScheduled(Event):
    """An intent is to be triggered at a given time.

    Attributes:
        intent: The intent.
        trigger_date_time: When to trigger it.
        entities: Entities that come with it.
        name: Id of the reminder; of several with one id only the last is run.
        kill_on_user_message: Whether a user message before that time cancels it.
    """

    type_name: ClassVar[str] = "reminder"

    intent: str
    trigger_date_time: datetime
    entities: list[dict[str, Any]] | None
    name: str
    kill_on_user_message: bool

    def __init__(
        self,
        intent: str,
        trigger_date_time: datetime,
        entities: list[dict[str, Any]] | None = None,
        name: str | None = None,
        kill_on_user_message: bool = True,
        timestamp: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        check_kind(trigger_date_time, datetime, "trigger_date_time")
        self._fill(
            timestamp,
            metadata,
            intent=intent,
            trigger_date_time=trigger_date_time,
            entities=entities,
            name=str(uuid.uuid1()) if name is None else name,
            kill_on_user_message=kill_on_user_message,
        )

    @staticmethod
    def _read(row: dict[str, Any]) -> dict[str, Any]:
        """Build it from its row; as in Rasa, a reminder without a name gets one."""
        date_time = row.pop("date_time", None)
        if not isinstance(date_time, str):
            raise MisfitError("the reminder has no time")
        name = row.pop("name", None)
        return {
            "intent": row.pop("intent", None),
            "trigger_date_time": datetime.fromisoformat(date_time),
            "entities": row.pop("entities", None),
            "name": str(uuid.uuid1()) if name is None else name,
            "kill_on_user_message": row.pop("kill_on_user_msg", True),
        }

    @property
    def stored_name(self) -> Any:
        """The reminder's name."""
        return self.name

    def scheduled_job_name(self, sender_id: str) -> str:
        """Return a name for the job that will trigger this reminder.

        The name holds hashes that differ between processes, as in Rasa.

        Args:
            sender_id: The conversation.
        """
        hashes = (hash(self.name), hash(self.intent), hash(str(self.entities)))
        return f"[{','.join(map(str, hashes))}]{_SENDER_ID_CONNECTOR}{sender_id}"

    def _fields(self) -> dict[str, Any]:
        fields = super()._fields()
        fields["intent"] = self.intent
        fields["date_time"] = self.trigger_date_time.isoformat()
        fields["entities"] = self.entities
        fields["name"] = self.name
        fields["kill_on_user_msg"] = self.kill_on_user_message
        return fields

    def _compared(self) -> Any:
        return self.name

    def __hash__(self) -> int:
        return hash(str(self.name))

    def __str__(self) -> str:
        return (
            f"ReminderScheduled(intent: {self.intent}, "
            f"trigger_date: {self.trigger_date_time}, "
            f"entities: {self.entities}, name: {self.name})"
        )


class ReminderCancelled(Event):
    """Reminders are cancelled: those that match what is given, or all of them.

    Rasa reads the three fields but forgets to write them, so that a stored cancellation
    comes back as one of everything; here they are written where they are set.

    Attributes:
        name: Name of the reminder.
        intent: Intent of the reminders.
        entities: Entities of the reminders.
    """

    type_name: ClassVar[str] = "cancel_reminder"

    name: str | None
    intent: str | None
    entities: list[dict[str, Any]] | None

    def __init__(
        self,
        name: str | None = None,
        intent: str | None = None,
        entities: list[dict[str, Any]] | None = None,
        timestamp: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._fill(timestamp, metadata, name=name, intent=intent, entities=entities)

    @staticmethod
    def _read(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "name": row.pop("name", None),
            "intent": row.pop("intent", None),
            "entities": row.pop("entities", None),
        }

    @property
    def stored_name(self) -> Any:
        """The reminder's name."""
        return self.name

    def cancels_job_with_name(self, job_name: str, sender_id: str) -> bool:
        """Whether this cancels a job of `ReminderScheduled.scheduled_job_name`.

        Args:
            job_name: Name of the job.
            sender_id: The conversation.
        """
        match = re.match(
            r"\[([\d\-]*),([\d\-]*),([\d\-]*)\]"
            + re.escape(f"{_SENDER_ID_CONNECTOR}{sender_id}"),
            job_name,
        )
        if not match:
            return False
        wanted = (self.name, self.intent, self.entities and str(self.entities))
        return all(
            not value or str(hash(value)) == found
            for value, found in zip(wanted, match.groups(), strict=True)
        )

    def _fields(self) -> dict[str, Any]:
        fields = super()._fields()
        for name in ("name", "intent", "entities"):
            value = getattr(self, name)
            if value is not None:
                fields[name] = value
        return fields

    def _compared(self) -> Any:
        return self.name, self.intent, str(self.entities)

    def __hash__(self) -> int:
        return hash(str(self._compared()))

    def __str__(self) -> str:
        return (
            f"ReminderCancelled(name: {self.name}, intent: {self.intent}, "
            f"entities: {self.entities})"
        )
