"""Serves MiniStack, under its own Python, on a listening socket of the parent: an early request waits.

python -I launch.py FD        until it is terminated
python -I launch.py FD DIR    until standard input ends, as it does when the parent dies; then remove DIR
"""

import asyncio
import importlib
import os
import shutil
import sys
import threading


def die_with_parent(directory: str) -> None:
    """End this process when the parent's end of the pipe closes, however the parent ended."""
    while os.read(0, 1024):
        pass
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)


def main(descriptor: str, directory: str = "") -> None:
    if directory:
        threading.Thread(target=die_with_parent, args=(directory,), daemon=True).start()
    server = importlib.import_module("hypercorn.asyncio")
    config = importlib.import_module("hypercorn.config").Config()
    application = importlib.import_module("ministack.app")
    config.bind = [f"fd://{descriptor}"]
    config.keep_alive_timeout = 75
    config.accesslog = "-"
    config.access_log_format = "%(s)s %(r)s %(b)s bytes"
    # it never shuts down in order: SIGTERM has its default action, because the state is discarded
    asyncio.run(server.serve(application.app, config, shutdown_trigger=asyncio.Event().wait))


if __name__ == "__main__":
    main(*sys.argv[1:])
