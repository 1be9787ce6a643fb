"""Files of a feed in a directory of this machine, or in one mounted here."""

from xmode_transfer.sources.local.source import LocalSource
