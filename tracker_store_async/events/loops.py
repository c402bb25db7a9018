"""Loops (forms): which one is active, and whether it was interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from tracker_store_async.events.base import Event, MisfitError, take_name
from tracker_store_async.events.json_values import frozen

if TYPE_CHECKING:
    from tracker_store_async.events.tracker_state import TrackerState


class ActiveLoop(Event):
    """A loop was activated, or the active one deactivated.

    Attributes:
        name: The loop that is active now, or None.
    """

    type_name: ClassVar[str] = "active_loop"
    _written: ClassVar[tuple[tuple[str, str], ...]] = (("name", "name"),)

    name: str | None

    def __init__(
        self,
        name: str | None,
        timestamp: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._fill(timestamp, metadata, name=name)

    @staticmethod
    def _read(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "name": take_name(row),
        }

    @property
    def stored_name(self) -> Any:
        """The loop's name."""
        return self.name

    def apply_to(self, tracker: TrackerState) -> None:
        """Make it the active loop."""
        tracker.change_loop_to(self.name)

    def _compared(self) -> Any:
        return self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return f"Loop({self.name})"


class LegacyForm(ActiveLoop):
    """The old name of `ActiveLoop`: rows of it load, and are written, as that."""

    type_name: ClassVar[str] = "form"
    _loads_as: ClassVar[type[Event] | None] = ActiveLoop

    def __init__(
        self,
        name: str | None,
        timestamp: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(name, timestamp, metadata)

    def _fields(self) -> dict[str, Any]:
        return {**super()._fields(), "event": ActiveLoop.type_name}


class LoopInterrupted(Event):
    """Whether the active loop was interrupted, so that it does not validate the input.

    Attributes:
        is_interrupted: Whether it was.
    """

    type_name: ClassVar[str] = "loop_interrupted"
    _written: ClassVar[tuple[tuple[str, str], ...]] = (
        ("is_interrupted", "is_interrupted"),
    )

    is_interrupted: bool

    def __init__(
        self,
        is_interrupted: bool,
        timestamp: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._fill(timestamp, metadata, is_interrupted=is_interrupted)

    @staticmethod
    def _read(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "is_interrupted": row.pop("is_interrupted", False),
        }

    def apply_to(self, tracker: TrackerState) -> None:
        """Tell the active loop."""
        tracker.interrupt_loop(self.is_interrupted)

    def _compared(self) -> Any:
        return self.is_interrupted

    def __hash__(self) -> int:
        return hash(frozen(self.is_interrupted))

    def __str__(self) -> str:
        return f"LoopInterrupted({self.is_interrupted})"


class LegacyFormValidation(LoopInterrupted):
    """The old name of `LoopInterrupted`, which said the opposite: `validate`.

    Rows of it load, and are written, as `LoopInterrupted`.
    """

    type_name: ClassVar[str] = "form_validation"
    _loads_as: ClassVar[type[Event] | None] = LoopInterrupted

    def __init__(
        self,
        validate: bool,
        timestamp: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(not validate, timestamp, metadata)

    @staticmethod
    def _read(row: dict[str, Any]) -> dict[str, Any]:
        validate = row.pop("validate", True)
        if type(validate) is not bool or "is_interrupted" in row:
            raise MisfitError("'validate' does not say whether the loop goes on")
        return {"is_interrupted": not validate}

    def _fields(self) -> dict[str, Any]:
        return {**super()._fields(), "event": LoopInterrupted.type_name}
