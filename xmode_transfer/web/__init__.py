"""The status page: what the ledger and the daemon know, for people who look, and for probes.

``server.serve`` is the one way in, ``serve_metrics`` the one for a worker, which has no page, and
``serve_waiting`` the one for a daemon whose ledger is away. It reads and never writes (but for the probe of
the ledger, which leaves nothing behind), and calls nobody.
"""
