"""The daemon as a process: its clock, its signals, what systemd is told, and its end."""

from xmode_transfer.entrypoints.daemon.process import Engine, run
