"""The conversation inspector: pages for a browser that show what is stored.

It only reads. `app.py` answers requests, for any framework; `searching.py` lists,
`reading.py` reads events and the state at one of them, `timeline.py` and `state.py`
say what is shown of them, `masking.py` what is not, `entry.py` who is let in.
"""
