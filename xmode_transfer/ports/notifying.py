"""Telling people."""

from typing import Protocol

from xmode_transfer.domain.alerts import Message, Route


class Notifier(Protocol):
    """One channel. Thread-safe; a call takes a few seconds at most."""

    @property
    def route(self) -> Route:
        """Its name, and what it gets."""
        ...

    def send(self, message: Message) -> str:
        """Sends the message, and answers what the channel said to it, in a few words and without secrets.
        Where the channel knows states, messages of one fingerprint belong together, and a resolved one ends
        what an opened one began. Sending a message twice does no harm. Raises NotificationFailed."""
        ...


class Heart(Protocol):
    """What says to the outside that we are alive and well."""

    every_seconds: int

    def beat(self) -> None:
        """Raises NotificationFailed."""
        ...
