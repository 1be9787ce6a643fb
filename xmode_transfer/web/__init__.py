"""The status page, the probes and the metrics. They never write, except for the ledger's probe, which leaves
nothing behind, and call no AWS account."""
