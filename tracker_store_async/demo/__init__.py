"""The demo: a restaurant assistant whose process is killed, and a second that goes on.

`story.py` tells it, `assistant.py` is an assistant as one would write it, and
`first_process.py` is what gets killed.
"""
