"""From the settings of a statement to the arguments of a class.

A connector class is made once for each query, with options as the parameters of its ``__init__``. A statement knows
text, numbers and truth values; what a parameter is annotated with says what becomes of them. One place does it, so
that an option means the same whatever model the class follows.
"""

from __future__ import annotations

import difflib
import inspect
import sys
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from couatl._conversion import Unfit, WrittenFloat, WrittenInt, convert, plain
from couatl._errors import Misuse, class_name, shown

__all__ = ["Option", "check", "instance", "make", "options_of"]

T = TypeVar("T")


#: The settings that a statement keeps for itself, unless they are quoted: then a class is told of them.
OWN_SETTINGS = {
    "type",
    "class",
    "read_function_name",
    "write_function_name",
    "init_function_name",
    "init_function_parameters",
    "deinit_function_name",
    "mode",
    "batch_size",
    "linger_ms",
    "write_format",
    "order_by",
}


@dataclass(frozen=True)
class Option:
    """One parameter of a class: `type` is its annotation (Any where there is none), `default` None where required."""

    name: str
    type: Any
    default: Any
    required: bool


def make(cls: type[T], options: Mapping[str, Any]) -> T:
    """Make an instance of `cls` with these options, each converted to what its parameter is annotated with.

    Misuse names an option that is unknown, missing, or cannot be converted. What the constructor raises is raised as
    it is.

    >>> from datetime import timedelta
    >>> class Poll:
    ...     def __init__(self, url: str, every: timedelta = timedelta(seconds=1)):
    ...         self.url, self.every = url, every
    >>> make(Poll, {"url": "http://localhost", "every": "100ms"}).every
    datetime.timedelta(microseconds=100000)
    >>> make(Poll, {"urll": ""})
    Traceback (most recent call last):
    couatl._errors.Misuse: Poll: there is no option 'urll'; did you mean 'url'?
    """
    values = check(cls, options)
    # What can be given by position alone is, up to the first that is left out.
    first: list[Any] = []
    for parameter in _parameters(cls):
        if parameter.kind is not parameter.POSITIONAL_ONLY or parameter.name not in values:
            break
        first.append(values.pop(parameter.name))
    return cls(*first, **values)


def check(cls: type, options: Mapping[str, Any], given: Collection[str] | None = None) -> dict[str, Any]:
    """The options as their parameters want them, without making anything; raises what :func:`make` does.

    `given` names those that are set, where not all of their values are known.
    """
    _check_constructor(cls)
    given = options if given is None else given
    known = {option.name: option for option in options_of(cls)}
    others = _others(cls)
    for name in given:
        if name not in known and others is None:
            raise Misuse(f"{class_name(cls)}: there is no option '{name}'{_hint(name, known)}")
    for option in known.values():
        if option.required and option.name not in given:
            of = f" ({type_name(option.type)})" if option.type is not Any else ""
            is_own = option.name in OWN_SETTINGS
            own = f'; write "{option.name}", in quotes, else it is a setting of the stream' if is_own else ""
            raise Misuse(f"{class_name(cls)}: expected the option '{option.name}'{of}, and it is not set{own}")
    values: dict[str, Any] = {}
    for name, value in options.items():
        try:
            values[name] = _convert(value, known[name]) if name in known else convert(value, others)
        except Unfit as expected:
            message = f"{class_name(cls)}: option '{name}': expected {expected}, got {_shown(value)}"
            raise Misuse(message) from None
    return values


def instance(thing: Any, options: Mapping[str, Any], *bases: type) -> Any:
    """A class made with its options; an instance is one already. Misuse where it makes nothing of these `bases`."""
    if isinstance(thing, type):
        made: Any = make(thing, options)
        if bases and not isinstance(made, bases):
            expected = " or ".join(base.__name__ for base in bases)
            raise Misuse(f"{class_name(thing)}() made {shown(made)}; expected an object that is a {expected}")
        return made
    if options:
        given = ", ".join(options)
        raise Misuse(f"options are for a class, and {shown(thing)} is an instance; it was given {given}")
    return thing


def options_of(cls: type) -> list[Option]:
    """The options of a class, in the order of its parameters."""
    hints = _hints(cls)
    options = []
    for parameter in _parameters(cls):
        hint = hints.get(parameter.name, Any)
        if parameter.kind is parameter.VAR_KEYWORD:
            options += _unpacked(hint) or []
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            required = parameter.default is parameter.empty
            default = None if required else parameter.default
            options.append(Option(parameter.name, hint, default, required))
    return options


def _others(cls: type) -> Any:
    """What all options are annotated with that have no name of their own; None where there may be none."""
    for parameter in _parameters(cls):
        if parameter.kind is parameter.VAR_KEYWORD:
            hint = _hints(cls).get(parameter.name, Any)
            return hint if _unpacked(hint) is None else None
    return None


def _unpacked(hint: Any) -> list[Option] | None:
    """The options in an ``Unpack[…]`` of a TypedDict; None of any other annotation."""
    if not _is_form(hint, "Unpack"):
        return None
    (keys,) = typing.get_args(hint)
    required: Collection[str] | None = getattr(keys, "__required_keys__", None)
    if required is None:
        return None
    options = []
    for name, of in typing.get_type_hints(keys, include_extras=True).items():
        is_required = name in required
        while _is_form(of, "Required", "NotRequired", "ReadOnly"):
            # Where annotations are texts, the TypedDict itself has not seen this.
            is_required = is_required if _is_form(of, "ReadOnly") else _is_form(of, "Required")
            (of,) = typing.get_args(of)
        options.append(Option(name, of, None, is_required))
    return options


def _is_form(hint: Any, *names: str) -> bool:
    """Whether it is one of the special forms of these names, of ``typing`` or of ``typing_extensions``."""
    return str(typing.get_origin(hint)).rpartition(".")[2] in names


def _constructor(cls: type) -> Callable[..., Any] | None:
    """What takes the parameters; None where nothing does."""
    call: Callable[..., Any] = type(cls).__call__
    if call is not type.__call__ and not _takes_anything(call):
        # A metaclass makes it in a way of its own.
        return call
    if cls.__init__ is not object.__init__:  # type: ignore[misc]
        return cls.__init__  # type: ignore[misc,no-any-return]
    return None if cls.__new__ is object.__new__ else cls.__new__  # type: ignore[comparison-overlap]


def _takes_anything(call: Callable[..., Any]) -> bool:
    try:
        kinds = {parameter.kind for parameter in signature(call).parameters.values()}
    except (TypeError, ValueError):
        return True
    return inspect.Parameter.VAR_KEYWORD in kinds


def _check_constructor(cls: type) -> None:
    """Misuse where calling it would run nothing of it."""
    constructor = cls.__init__  # type: ignore[misc]
    if inspect.iscoroutinefunction(constructor) or inspect.isasyncgenfunction(constructor):
        raise Misuse(f"{class_name(cls)}.__init__() is asynchronous; expected a plain method (def, not async def)")
    if inspect.isgeneratorfunction(constructor):
        raise Misuse(f"{class_name(cls)}.__init__() has a yield, and nothing of it would run; expected one without")


def _parameters(cls: type) -> list[inspect.Parameter]:
    # `inspect.signature` of the class itself prefers a `__new__`, which some of the bases have for their own reasons.
    constructor = _constructor(cls)
    if constructor is None:
        return []
    try:
        return list(signature(constructor).parameters.values())[1:]
    except (TypeError, ValueError):
        # A constructor in C: it may take anything.
        return [inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)]


def signature(function: Callable[..., Any], *, follow_wrapped: bool = True) -> inspect.Signature:
    """What a function takes, in every version of Python."""
    if sys.version_info >= (3, 14):
        import annotationlib

        # Annotations that cannot be evaluated are no reason to fail.
        annotated = annotationlib.Format.FORWARDREF
        return inspect.signature(function, follow_wrapped=follow_wrapped, annotation_format=annotated)
    return inspect.signature(function, follow_wrapped=follow_wrapped)


def _hints(cls: type) -> dict[str, Any]:
    """The annotations that can be resolved."""
    constructor = _constructor(cls)
    if constructor is None:
        return {}
    try:
        return typing.get_type_hints(constructor)
    except Exception:
        # One name that is imported for type checkers alone hides none of the others.
        pass
    scope = getattr(inspect.unwrap(constructor), "__globals__", {})
    hints = {}
    for parameter in _parameters(cls):
        hint = parameter.annotation
        try:
            hint = eval(hint, scope) if isinstance(hint, str) else hint
        except Exception:
            continue
        if hint is not parameter.empty:
            hints[parameter.name] = hint
    return hints


def _hint(name: str, known: Iterable[str]) -> str:
    names = list(known)
    folded = next((known for known in names if known.lower() == name), None)
    if folded is not None:
        return f'; write "{folded}", in quotes, else SQL folds it to lower case'
    near = difflib.get_close_matches(name, names, 1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; expected one of {', '.join(names)}" if names else "; it takes none"


def _convert(value: Any, option: Option) -> Any:
    if value is None and not option.required and option.default is None:
        return None
    return convert(value, option.type)


def type_name(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


def _shown(value: Any) -> str:
    """The value as it was written, with its type."""
    if not isinstance(value, (WrittenInt, WrittenFloat)):
        return shown(value)
    text = str(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(plain(value)).__name__})"


def number(text: str) -> int | float:
    """A number, as a statement has it; where its text says more than its value, it remembers it.

    >>> number("5"), number("1.5"), str(number("007")), str(number("1.10"))
    (5, 1.5, '007', '1.10')
    """
    try:
        value: int | float = int(text)
    except ValueError:
        value = float(text)
    if str(value) == text:
        return value
    return WrittenInt(text) if isinstance(value, int) else WrittenFloat(text)
