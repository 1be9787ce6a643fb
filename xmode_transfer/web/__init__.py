"""The status page, the probes and the metrics, served by ``server``. They read and never write (except for
the ledger's probe, which leaves nothing behind), and call no AWS account.
"""
