"""The worker process: turns of customers, from the queue of the database that holds the ledger."""

from xmode_transfer.entrypoints.worker.process import run
