"""The daemon: it looks again and again for what is due, a period a turn (docs/daemon.md).

``Daemon.tick`` says what is due, ``Dispatch`` queues it, a ``Worker`` takes the turns (the daemon's own, or
any number of a fleet's), ``Turns`` is one of them, and ``House`` does the housekeeping.
Nothing here knows a scheduler, a signal or systemd: entrypoints/daemon does.
"""

from xmode_transfer.services.daemon.daemon import Daemon
from xmode_transfer.services.daemon.dispatch import Dispatch
from xmode_transfer.services.daemon.house import House
from xmode_transfer.services.daemon.turns import Turns
from xmode_transfer.services.daemon.worker import Worker
