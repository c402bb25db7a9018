"""Contestants that run as a process of their own, each in its own environment."""
