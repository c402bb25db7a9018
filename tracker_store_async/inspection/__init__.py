"""Looking at a configured store: what the `tracker-store` command does.

`targets.py` finds the store that is meant, `commands.py` opens it and shows, lists or
checks it, `timeline.py`, `listing.py` and `terminal.py` write what people read.
"""
