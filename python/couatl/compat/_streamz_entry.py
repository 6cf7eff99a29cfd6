"""Where rows enter Streamz: a stream of ours, and behind it the node that they are for.

Sinks and transforms begin in the same way, and only what comes after it tells them apart.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from couatl._errors import Misuse, class_name
from couatl._models import qualified
from couatl._options import make, options_of
from couatl.compat._streamz_nodes import Held, Loop, Outlet, roots, settle


class Entry:
    """The stream that rows are emitted to, and the node behind it."""

    def __init__(self, thing: Any, options: Mapping[str, Any]) -> None:
        self.thing = thing
        self.options = options
        self.root: Any = None
        self.node: Any = None

    async def open(self, failed: Callable[[BaseException], object], outlet: Outlet | None) -> None:
        if isinstance(self.thing, type):
            self.root = _stream_class(self.thing)(loop=Loop(failed), asynchronous=True)
            node = _behind(self.thing, self.root, self.options)
            if not any(root is self.root for root in roots(node)):
                what = f"{class_name(self.thing)}.__init__() has not told super().__init__() its upstream"
                raise Misuse(f"{what}; expected super().__init__(upstream, **kwargs)")
            self.node = node
        else:
            self.node = self.thing
            found = roots(self.thing)
            if len(found) > 1 or found[0] is self.thing:
                what = f"{class_name(self.thing)} has {'no' if found[0] is self.thing else 'more than one'} stream"
                raise Misuse(f"{what} in front of it; expected one that rows can be emitted to")
            self.root = found[0]
        if outlet is not None:
            self.node._add_downstream(outlet)

    def is_ours(self) -> bool:
        """Whether its nodes run where they are called. Those made before may be at home on a loop of the library's."""
        return self.root.loop is None or isinstance(self.root.loop, Loop)

    async def emit(self, element: Any, held: Held) -> None:
        """Emit an element, and wait until it has been taken."""
        root, metadata = self.root, held.metadata()
        if self.is_ours():
            results = root._emit(element, metadata=metadata)
            if results:
                await settle(self.node, results)
        else:
            # There, `emit` waits for that loop.
            await asyncio.get_running_loop().run_in_executor(None, lambda: root.emit(element, metadata=metadata))

    def close(self, outlet: Outlet | None) -> None:
        if outlet is not None and self.node is not None and outlet in self.node.downstreams:
            self.node._remove_downstream(outlet)


def _stream_class(cls: type) -> Any:
    """The Stream that a class is derived from."""
    known = ("streamz.core.Stream", "couatl.compat.streamz.Stream")
    return next(base for base in cls.__mro__ if qualified(base) in known)


def _behind(cls: type, upstream: Any, options: Mapping[str, Any]) -> Any:
    """Make a node behind a stream, which is its first parameter, whatever that is called."""
    known = options_of(cls)
    first = next(iter(inspect.signature(cls).parameters.values()), None)
    if first is None or first.kind is first.VAR_POSITIONAL or not known:
        return cls(upstream, **options)
    if first.name in options:
        raise Misuse(f"{class_name(cls)}: there is no option '{first.name}': it is the stream in front of it")
    return make(cls, {first.name: upstream, **options})
