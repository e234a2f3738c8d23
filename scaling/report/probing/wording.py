"""Sentences that the terminal and the page of a probe share."""

from collections.abc import Mapping
from typing import Any


def other_world(about: Mapping[str, Any]) -> str:
    """That --facts asks about a world that the run never read, and which one to ask about."""
    read = " and ".join(about["worlds_of_run"])
    return (
        f"--facts={about['file']} is not the world in the run's data.corpora; to ask what the run "
        f"was told, use --facts={read}"
    )


def unlearned_unread(about: Mapping[str, Any]) -> str:
    """Why the facts are not divided by the words in which the run unlearned them."""
    why = "so the table cannot separate the unlearned wordings from the others"
    return f"{about['unlearned_unread']}; {why}"
