"""How the demo speaks: headings, remarks and what users and the bot say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from tracker_store_async.inspection.terminal import can_draw, printable

if TYPE_CHECKING:
    from rich.console import Console

_WIDEST = 88


class Narrator:
    """Writes to a console; lines are wrapped for a terminal only.

    Args:
        console: Where to write.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._mark = "▌ " if can_draw(console) else "# "

    def heading(self, title: str) -> None:
        """Begin a part of the story."""
        self._console.print()
        self._console.print(Text(f"{self._mark}{printable(title)}", "bold"))

    def say(self, text: str) -> None:
        """Explain what has happened or will."""
        remark = Text(printable(text), "italic")
        if self._console.is_terminal:
            width = min(_WIDEST, self._console.width)
            self._console.print(Padding(remark, (0, 2)), width=width)
        else:
            self._console.print(Text("  ") + remark, soft_wrap=True)

    def quote(self, sender_id: str, who: str, text: str) -> None:
        """Show what a user or the bot says in a conversation."""
        line = Text.assemble(
            (f"  {printable(sender_id):<10} ", "bold"),
            (f"{who:<6}{printable(text)}", "cyan" if who == "user" else "green"),
        )
        self._console.print(line, soft_wrap=True)

    def command(self, text: str) -> None:
        """Name a command to be typed."""
        self._console.print(Text(f"  {printable(text)}"), soft_wrap=True)
