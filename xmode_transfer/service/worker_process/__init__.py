"""The worker process: jobs of customers, from the queue of the database that holds the ledger."""

from xmode_transfer.service.worker_process.process import run
