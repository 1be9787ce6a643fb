"""The daemon: it looks again and again for what is due and delivers it, a period a turn (docs/daemon.md).

``Daemon.tick`` says what is due, a ``Crew`` gives it turns (``ThreadCrew`` on a bounded pool of this
process, ``FleetCrew`` on any number of workers), ``Turns`` takes one, and ``House`` does the housekeeping.
Nothing here knows a scheduler, a signal or systemd: entrypoints/daemon does.
"""

from xmode_transfer.services.daemon.crew import Crew, Hire
from xmode_transfer.services.daemon.daemon import Daemon
from xmode_transfer.services.daemon.fleet import FleetCrew, of_fleet
from xmode_transfer.services.daemon.house import House
from xmode_transfer.services.daemon.threads import ThreadCrew
from xmode_transfer.services.daemon.turns import Turns

__all__ = ["Crew", "Daemon", "FleetCrew", "Hire", "House", "ThreadCrew", "Turns", "of_fleet"]
