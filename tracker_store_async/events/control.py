"""Events that begin, restart, rewind, pause, resume or export a conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from tracker_store_async.events.base import Event

if TYPE_CHECKING:
    from tracker_store_async.events.tracker_state import TrackerState


class SessionStarted(Event):
    """A new session of the conversation begins here.

    So it does at every row of this type, whatever its metadata is.
    """

    type_name: ClassVar[str] = "session_started"
    _keeps_odd_metadata: ClassVar[bool] = True

    def __init__(
        self, timestamp: float | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(timestamp, metadata)

    def apply_to(self, tracker: TrackerState) -> None:
        """Forget the state of the session before."""
        tracker._begin_session()


class Restarted(Event):
    """The conversation starts over; its events stay in the log."""

    type_name: ClassVar[str] = "restart"

    def __init__(
        self, timestamp: float | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(timestamp, metadata)

    def apply_to(self, tracker: TrackerState) -> None:
        """Forget the state and run `action_session_start` next."""
        tracker._reset()
        tracker.trigger_followup_action("action_session_start")


class UserUtteranceReverted(Event):
    """The latest user message, and what followed it, is undone."""

    type_name: ClassVar[str] = "rewind"

    def __init__(
        self, timestamp: float | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(timestamp, metadata)

    def apply_to(self, tracker: TrackerState) -> None:
        """Compute the state again; the tracker leaves out what is undone."""
        tracker._reset()
        tracker.replay_events()


class ConversationPaused(Event):
    """The bot stops answering, so that a human can take over."""

    type_name: ClassVar[str] = "pause"

    def __init__(
        self, timestamp: float | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(timestamp, metadata)

    def apply_to(self, tracker: TrackerState) -> None:
        """Pause the tracker."""
        tracker._paused = True


class ConversationResumed(Event):
    """The bot answers again."""

    type_name: ClassVar[str] = "resume"

    def __init__(
        self, timestamp: float | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(timestamp, metadata)

    def apply_to(self, tracker: TrackerState) -> None:
        """Resume the tracker."""
        tracker._paused = False


class StoryExported(Event):
    """The conversation was exported as a story.

    Rasa reads `path` but forgets to write it; here it is written where it is set.
    Applying the event exports nothing: that belongs to Rasa's training part.

    Attributes:
        path: The file it was exported to.
    """

    type_name: ClassVar[str] = "export"

    path: str | None

    def __init__(
        self,
        path: str | None = None,
        timestamp: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._fill(timestamp, metadata, path=path)

    @staticmethod
    def _read(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "path": row.pop("path", None),
        }

    def _fields(self) -> dict[str, Any]:
        fields = super()._fields()
        if self.path is not None:
            fields["path"] = self.path
        return fields

    def _compared(self) -> Any:
        return self.path

    def __hash__(self) -> int:
        return hash(self.type_name)
