"""The daemon and the workers of a fleet (docs/daemon.md, docs/scaling.md). A daemon queues what is due; a
worker runs the jobs. ``assembly`` builds the parts, for the commands too.
"""
