"""What a move did, and what is told of it while it is under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

SHOWN_PROBLEMS = 100
"""Most problems that a report holds; the others are counted."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A conversation that is not, or could not be made, the same in both places.

    Attributes:
        sender_id: The conversation.
        position: Position of the first event that differs, or None where it is not an
            event.
        reason: What differs, without any text of a message.
    """

    sender_id: str
    position: int | None
    reason: str

    def __str__(self) -> str:
        """Read as one sentence."""
        where = "" if self.position is None else f" at position {self.position}"
        return f"conversation {self.sender_id!r}{where}: {self.reason}"


@dataclass(slots=True)
class MoveReport:
    """What `migrate`, `restore` or `verify` did.

    Attributes:
        conversations: Conversations that were looked at.
        copied: Conversations that did not exist in the target.
        continued: Conversations of which something was missing there.
        unchanged: Conversations that were there already, whole.
        deleted: Conversations that were erased in the target.
        events: Events that were written; with `verify`, that were compared.
        problems: The first conversations that could not be copied, or differ.
        problem_count: How many there are.
        seconds: How long it took.
        verified: Whether everything was compared.
    """

    conversations: int = 0
    copied: int = 0
    continued: int = 0
    unchanged: int = 0
    deleted: int = 0
    events: int = 0
    problems: list[Conflict] = field(default_factory=list)
    problem_count: int = 0
    seconds: float = 0.0
    verified: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether everything is where it should be."""
        return not self.problem_count

    def add_changes(self, other: MoveReport) -> None:
        """Add what was done, or could not be, in a further look at the same stores."""
        self.conversations += other.copied + other.continued + other.problem_count
        self.copied += other.copied
        self.continued += other.continued
        self.deleted += other.deleted
        self.events += other.events
        known = {problem.sender_id for problem in self.problems}
        for problem in other.problems:
            if problem.sender_id not in known:
                self.add_problem(problem)
        self.problem_count += other.problem_count - len(other.problems)

    def add_problem(self, problem: Conflict) -> None:
        """Count a problem, and keep it if it is one of the first."""
        self.problem_count += 1
        if len(self.problems) < SHOWN_PROBLEMS:
            self.problems.append(problem)


@dataclass(slots=True)
class BackupReport:
    """What `backup` wrote.

    Attributes:
        path: The file.
        conversations: Conversations in it.
        events: Events in it.
        size_bytes: Its size.
        checksum: SHA-256 of everything in it, before compression.
        seconds: How long it took.
        began_at: When it was begun (s since the epoch), by the first run where one was
            cut off: what was updated since may not be in it.
    """

    path: str
    conversations: int = 0
    events: int = 0
    size_bytes: int = 0
    checksum: str = ""
    seconds: float = 0.0
    began_at: float = 0.0


@dataclass(slots=True)
class ExportReport:
    """What `export_events` published.

    Attributes:
        conversations: Conversations that were looked at.
        events: Events that the broker has confirmed.
        seconds: How long it took.
        missing: Conversations that were asked for and do not exist.
        erased: The first conversations whose data key was erased: nobody can read, or
            export, what is stored of them.
        erased_count: How many there are.
    """

    conversations: int = 0
    events: int = 0
    seconds: float = 0.0
    missing: list[str] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)
    erased_count: int = 0

    def add_erased(self, sender_id: str) -> None:
        """Count an erased conversation, and keep its id if it is of the first."""
        self.erased_count += 1
        if len(self.erased) < SHOWN_PROBLEMS:
            self.erased.append(sender_id)


class Progress(Protocol):
    """Is told how far a move is."""

    def expect(self, conversations: int, events: int) -> None:
        """Note how much there is to do in all, once that is known."""

    def advance(self, conversations: int, events: int) -> None:
        """Note that so much more is done."""


class Silent:
    """A progress that nobody looks at."""

    def expect(self, conversations: int, events: int) -> None:
        """Do nothing."""

    def advance(self, conversations: int, events: int) -> None:
        """Do nothing."""
