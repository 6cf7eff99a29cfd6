"""``python -m couatl``: the command."""

from couatl.command import main

if __name__ == "__main__":
    main()
