"""Serves MiniStack on a socket that the parent has opened. Runs under MiniStack's own Python, not ours.

    python -I launch.py FD                 until it is terminated
    python -I launch.py FD --attached      until standard input ends, which it does when the parent dies
    python -I launch.py FD --attached DIR  the same, and then removes the directory

The parent picks the port and passes the listening socket, so no other process can take the port in between,
and a request that is sent early waits until the server is up.
"""

import asyncio
import importlib
import os
import shutil
import sys
import threading


def die_with_parent(directory: str | None) -> None:
    """Ends this process as soon as the parent's end of the pipe is closed, however the parent ended."""
    while os.read(0, 1024):
        pass
    if directory:
        shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)


async def never() -> None:
    """Leaves SIGTERM its default action: the state is thrown away, so nothing needs an orderly end."""
    await asyncio.Event().wait()


def main(descriptor: str, mode: str = "--detached", directory: str | None = None) -> None:
    if mode == "--attached":
        threading.Thread(target=die_with_parent, args=(directory,), daemon=True).start()
    server = importlib.import_module("hypercorn.asyncio")
    config = importlib.import_module("hypercorn.config").Config()
    application = importlib.import_module("ministack.app")
    config.bind = [f"fd://{descriptor}"]
    config.keep_alive_timeout = 75
    config.accesslog = "-"
    config.access_log_format = "%(s)s %(r)s %(b)s bytes"
    asyncio.run(server.serve(application.app, config, shutdown_trigger=never))


if __name__ == "__main__":
    main(*sys.argv[1:])
