"""Encryption at rest: master keys, data keys, and the text that is stored.

`EncryptedTrackerStore` (`wrappers/encrypted.py`) puts them to use; `docs/encryption.md`
says what is sealed, what is not, and where each key lives.
"""
