"""Methods that are wrong in the ways in which those of a user's class may be, and what is to be said of each."""

from __future__ import annotations

import pytest
from couatl._errors import Misuse

#: What is raised: a RuntimeError where a method raises what it must not.
ERRORS = (Misuse, RuntimeError)


def others(self, one, two, three, four, five):
    """Takes more than any method is called with."""


async def awaited(self, *_, **__):
    """Is awaited by nobody."""


def yielded(self, *_, **__):
    """Runs when somebody iterates."""
    yield


def ended(self, *_, **__):
    """Says that there is an end, where there is none."""
    raise StopIteration


def giving(value):
    """A method that gives this, whatever it is called with."""
    return lambda self, *_: value


def raising(self, *_):
    """Has an error of its author's."""
    raise OSError("mine")


WRONG = {
    "signature": (others, r"\(self, one, two, three, four, five\) cannot be called .*expected .*{name}\("),
    "no method": (5, r" is 5 \(int\); expected a method.* {name}\("),
    "async def": (
        awaited,
        r"\(\) returned <coroutine .* \(coroutine\); expected a plain method \(def, not async def\)",
    ),
    "a yield": (yielded, r"\(\) returned <generator .* \(generator\); expected a method without yield"),
    "StopIteration": (ended, r"\(\) raised StopIteration"),
}
ALL = tuple(WRONG)


def misused(**methods):
    """Cases of methods, each with its kinds of wrong: the method, what stands in its place, and what is said of it."""
    cases = []
    for name, kinds in methods.items():
        for kind in kinds:
            wrong, said = WRONG[kind]
            said = rf"^Bad\.{name}" + said.format(name=name)
            cases.append(pytest.param(name, wrong, said, id=f"{name}: {kind}"))
    return pytest.mark.parametrize(("method", "wrong", "said"), cases)


def all_but(*kinds):
    """The other kinds."""
    return tuple(kind for kind in ALL if kind not in kinds)
