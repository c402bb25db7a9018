"""Looking at a configured store: what the `tracker-store` command does.

`targets.py` finds the store that is meant and `opening.py` opens it, `commands.py`
shows and lists conversations, `layout_commands.py` checks and upgrades the layout;
`timeline.py`, `listing.py` and `terminal.py` write what people read.
"""
