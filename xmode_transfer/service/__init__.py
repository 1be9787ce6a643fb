"""The daemon and the workers of a fleet: what is due is queued, and a worker takes the jobs (docs/daemon.md,
docs/scaling.md). ``assembly`` puts the parts together, for the commands too.
"""
