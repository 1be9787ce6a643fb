"""The daemon as a process: its clock, its signals, what systemd is told, and its end."""

from xmode_transfer.entrypoints.daemon.process import run

__all__ = ["run"]
