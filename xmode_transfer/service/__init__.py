"""The daemon: it looks again and again for what is due, a period a job (docs/daemon.md).

``Daemon.tick`` says what is due, ``Scheduler`` queues it, a ``Worker`` takes the jobs (the daemon's own, or
any number of a fleet's), ``Jobs`` does one of them, and ``Maintenance`` cleans up and checks access.
Nothing here knows a scheduling library, a signal or systemd: service/process does.
"""

from xmode_transfer.service.daemon import Daemon
from xmode_transfer.service.maintenance import Maintenance
from xmode_transfer.service.scheduler import Scheduler
from xmode_transfer.service.worker import Worker
