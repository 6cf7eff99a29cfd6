"""The ``couatl`` command, as the wheel installs it."""

import os
import signal
import sys

from couatl import _couatl

GRACE_SECONDS = 1.0


def main() -> None:
    """Run the command with the arguments of this process, and exit."""
    # The command has handlers of its own; Python's would be called by them.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    code = _couatl.run(sys.argv)
    sys.stdout.flush()
    sys.stderr.flush()
    if _couatl.cancel_all(GRACE_SECONDS):
        # User code that does not end must not keep the process, and the interpreter cannot be taken from under it.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
