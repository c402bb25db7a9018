"""What applying an event asks of a tracker."""

from __future__ import annotations

from typing import Any, Protocol


class TrackerState(Protocol):
    """What an event needs of the tracker that it is applied to."""

    latest_message: Any
    latest_bot_utterance: Any
    _paused: bool

    @property
    def latest_action_name(self) -> str | None:
        """Name of the action that ran last."""

    def _set_slot(self, key: str, value: Any) -> None: ...

    def _reset(self) -> None: ...

    def _begin_session(self) -> None: ...

    def _reset_slots(self) -> None: ...

    def replay_events(self) -> None:
        """Apply all events again."""

    def trigger_followup_action(self, action: str) -> None:
        """Make `action` the next one."""

    def clear_followup_action(self) -> None:
        """Forget the action that was to be next."""

    def set_latest_action(self, action: dict[str, str]) -> None:
        """Note the action that ran."""

    def change_loop_to(self, loop_name: str | None) -> None:
        """Activate a loop, or none."""

    def interrupt_loop(self, is_interrupted: bool) -> None:
        """Note whether the active loop was interrupted."""

    def reject_action(self, action_name: str) -> None:
        """Note that the action refused to run."""
