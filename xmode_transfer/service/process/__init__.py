"""The daemon as a process: its clock, its signals, what systemd is told, and its end."""

from xmode_transfer.service.process.process import Engine, run
