"""How the inspector behaves, and whether there is one."""

from __future__ import annotations

from dataclasses import dataclass

from tracker_store_async.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class InspectorOptions:
    """How the inspector behaves.

    Attributes:
        unmasked: Whether secrets and the slots of `redaction.configure` are shown.
        loopback_only: Whether requests for any other host name than one of this
            machine's loopback are refused: without a token, a page of somebody else's
            could otherwise have its own name lead here (DNS rebinding).
    """

    unmasked: bool = False
    loopback_only: bool = False


def check_options(
    token: str | None, wanted: bool | InspectorOptions | None
) -> InspectorOptions | None:
    """Return the options of an inspector that is wanted, or None.

    Args:
        token: What one signs in with, or None.
        wanted: True, or options, for yes; False for no; None for yes if there is a
            token.

    Raises:
        ConfigurationError: It is none of these.
    """
    if wanted is None:
        wanted = token is not None
    if isinstance(wanted, InspectorOptions):
        return wanted
    if not isinstance(wanted, bool):
        raise ConfigurationError(
            "inspector must be True, False, None or InspectorOptions, not "
            f"{type(wanted).__name__}"
        )
    return InspectorOptions() if wanted else None
