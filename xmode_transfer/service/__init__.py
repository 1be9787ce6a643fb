"""The daemon, which queues what is due, and the workers, which run the jobs (docs/daemon.md)."""
