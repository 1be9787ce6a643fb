"""The CRT's threads, as Python sees them."""

import ctypes
import threading

_here = threading.local()


def keep_state() -> None:
    """To be called in a callback of the CRT: keeps the interpreter's state of this thread from now on.

    Else CPython makes one for each callback and throws it away after: two system calls that map memory and a
    page fault, four times an object, a fifth of an object's whole CPU (measured with CPython 3.11). One
    ``PyGILState_Ensure`` more than there are releases is all it takes (C API, "Non-Python created threads");
    the threads live as long as the engine.
    """
    if not hasattr(_here, "kept"):
        _here.kept = True
        ctypes.pythonapi.PyGILState_Ensure()
