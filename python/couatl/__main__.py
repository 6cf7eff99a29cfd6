"""``python -m couatl``: the command."""

from couatl.command import main

main()
