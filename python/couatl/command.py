"""The ``couatl`` command, as the wheel installs it."""

import contextlib
import os
import signal
import sys
import threading

from couatl import _couatl

GRACE_SECONDS = 0.5


def main() -> None:
    """Run the command with the arguments of this process, and exit."""
    # The command has handlers of its own; Python's would be called by them.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Standard output is the command's, for rows and the listener's address; what bodies print goes beside it, and so
    # does what their C code and their processes write to the file descriptor.
    sys.stdout = sys.stderr
    # Where one of them was closed at the start, its number is by now some other file's.
    if sys.__stdout__ is not None and sys.__stderr__ is not None and _couatl.keep_stdout():
        with contextlib.suppress(OSError):
            os.dup2(2, 1)
    code = _couatl.run(sys.argv)
    if sys.stderr is not None:
        sys.stderr.flush()
    stuck = _couatl.cancel_all(GRACE_SECONDS)
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon]
    if stuck or others:
        # User code that does not end must not keep the process, and the interpreter cannot be taken from under it.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
