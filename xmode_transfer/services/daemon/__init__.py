"""The daemon: it looks again and again for what is due and delivers it, a period a turn (docs/daemon.md).

``Daemon.tick`` says what is due, ``Crew`` gives it turns on a bounded pool, ``Turns`` takes one, and
``House`` does the housekeeping. Nothing here knows a scheduler, a signal or systemd: entrypoints/daemon does.
"""

from xmode_transfer.services.daemon.crew import Crew
from xmode_transfer.services.daemon.daemon import Daemon
from xmode_transfer.services.daemon.house import House
from xmode_transfer.services.daemon.turns import Turns

__all__ = ["Crew", "Daemon", "House", "Turns"]
