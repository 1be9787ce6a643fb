"""The worker process: turns of customers, from the queue of the database that holds the ledger.

This package and ``bootstrap`` alone know Procrastinate.
"""

from xmode_transfer.entrypoints.worker.process import run

__all__ = ["run"]
