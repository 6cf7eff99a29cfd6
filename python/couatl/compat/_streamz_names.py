"""A bug of Streamz, which names that are alike set off: ``import streamz`` fails where two plugins have the same name.

To say whose name it leaves out, it asks an entry point for its ``module_name``, which is what ``pkg_resources`` calls
the ``module`` of one; the standard library's have none. With it, the first one wins there too, and the warning comes.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint


def repair() -> None:
    """Let entry points have a ``module_name``; before anybody imports the library."""
    if not hasattr(EntryPoint, "module_name"):
        EntryPoint.module_name = property(lambda point: point.module)  # type: ignore[attr-defined]
