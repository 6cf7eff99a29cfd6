"""Which connector model a class follows: the one table of names, and the one place that looks there.

```text
  the classes in its MRO, by qualified name  ──> one model ──> the roles of the most derived of them
     none: the methods that it has, by sets that only one model has
```

A library is never imported to find out: where one of its classes is in an MRO, it has been. What is found says which
module of ``couatl.compat`` turns the class into one of ours; the couatl model needs none.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Literal

from couatl._errors import Misuse, class_name, shown
from couatl.compat import _streamz_names

Role = Literal["source", "sink", "function", "transform"]

# All who may import the library come by here.
_streamz_names.repair()


@dataclass(frozen=True)
class Model:
    """A way to write connectors: its base classes, by role, and the methods that tell it where there is no base.

    `module` is its adapter in ``couatl.compat``, and where base classes of the same names are; empty for our own. Where
    options are the parameters of the class, it `is_called`; else they are what its model says.
    """

    name: str
    module: str
    classes: Mapping[str, Sequence[str]]
    ducks: Mapping[str, Sequence[tuple[str, ...]]] = field(default_factory=dict)
    is_called: bool = False

    def adapter(self) -> ModuleType:
        """The module that turns its classes into ours; imported here, as it imports our base classes."""
        return import_module(f"couatl.compat.{self.module}")

    def has_made(self, thing: object, role: Role) -> bool:
        """Whether an instance has a role that its class has not, as the last node of a pipeline behind a source."""
        found = getattr(self.adapter(), "has_made", None) if self.module else None
        return found is not None and bool(found(thing, role))

    def roles_of(self, qualified: str) -> set[str]:
        """The roles of one of its base classes, by qualified name; none of any other class."""
        names = {role: set(names) for role, names in self.classes.items()}
        if self.module and qualified.startswith(f"couatl.compat.{self.module}."):
            qualified = qualified.rpartition(".")[2]
            names = {role: {name.rpartition(".")[2] for name in of} for role, of in names.items()}
        return {role for role, of in names.items() if qualified in of}


COUATL = Model(
    "couatl",
    "",
    {"source": ["couatl.sources.Source"], "sink": ["couatl.sinks.Sink", "couatl.sinks.AsyncSink"]},
    is_called=True,
)

MODELS = [
    COUATL,
    Model(
        "bytewax",
        "bytewax",
        {
            "source": [
                "bytewax.inputs.Source",
                "bytewax.inputs.FixedPartitionedSource",
                "bytewax.inputs.DynamicSource",
                "bytewax.inputs.SimplePollingSource",
            ],
            "sink": [
                "bytewax.outputs.Sink",
                "bytewax.outputs.FixedPartitionedSink",
                "bytewax.outputs.DynamicSink",
            ],
        },
        {"source": [("list_parts", "build_part")], "sink": [("list_parts", "build_part")]},
        is_called=True,
    ),
    Model(
        "pathway",
        "pathway",
        {
            "source": ["pathway.io.python.ConnectorSubject"],
            "sink": ["pathway.io.python.ConnectorObserver"],
        },
        {"source": [("run", "on_stop")], "sink": [("on_change", "on_end")]},
    ),
    Model(
        "pyspark",
        "pyspark",
        {
            "source": ["pyspark.sql.datasource.DataSource"],
            "sink": ["pyspark.sql.datasource.DataSource"],
        },
        {
            "source": [("schema", "reader"), ("schema", "streamReader"), ("schema", "simpleStreamReader")],
            "sink": [("schema", "writer"), ("schema", "streamWriter")],
        },
    ),
    Model(
        "streamz",
        "streamz",
        {
            "source": ["streamz.sources.Source"],
            "sink": ["streamz.sinks.Sink"],
            "transform": ["streamz.core.Stream"],
        },
    ),
    Model(
        "ekuiper",
        "ekuiper",
        {
            "source": ["ekuiper.source.Source"],
            "sink": ["ekuiper.sink.Sink"],
            "function": ["ekuiper.function.Function"],
        },
        {
            "source": [("configure", "open")],
            "sink": [("configure", "open", "collect")],
            "function": [("validate", "exec")],
        },
    ),
]


def recognise(thing: object, role: Role) -> Model:
    """The model that a class, or the class of an instance, follows in this role.

    Raises Misuse where none does, where two do, and where it has another role; it says what would fit.

    >>> from couatl.sources import Source
    >>> class Numbers(Source): ...
    >>> recognise(Numbers, "source").name
    'couatl'
    """
    cls = thing if isinstance(thing, type) else type(thing)
    found = list(_by_name(cls)) or list(_by_methods(cls))
    what = f"class {class_name(cls)}" if thing is cls or found else shown(thing)
    fits = [model for model, roles in found if role in roles]
    if not fits and thing is not cls:
        fits = [model for model, _ in found if model.has_made(thing, role)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        names = " and as ".join(f"{_article(model)} {role}" for model in fits)
        raise Misuse(f"{what} can be read as {names}; derive it from one of them alone")
    if found:
        model, roles = found[0]
        raise Misuse(f"expected a {role}, and {what} is {_article(model)} {' and '.join(sorted(roles))}")
    raise Misuse(f"expected a {role}, got {what}; what would fit is {_what_would_fit(role)}")


def is_connector(thing: object, role: Role) -> bool:
    """Whether :func:`recognise` is to be asked: it is of a model's class, or has the methods of one for this role.

    A class for another role counts, so that what is wrong can be said.

    >>> is_connector([1, 2], "source")
    False
    """
    cls = thing if isinstance(thing, type) else type(thing)
    return any(_by_name(cls)) or any(role in roles for _, roles in _by_methods(cls))


def _by_name(cls: type) -> Iterator[tuple[Model, set[str]]]:
    """The models whose base classes it derives from, each with the roles of the most derived ones."""
    known = [(base, model) for base in cls.__mro__ for model in MODELS if model.roles_of(qualified(base))]
    for model in MODELS:
        roles: set[str] = set()
        for base, of in known:
            if of is model and not any(other is not base and issubclass(other, base) for other, _ in known):
                roles |= model.roles_of(qualified(base))
        if roles:
            yield model, roles


def _by_methods(cls: type) -> Iterator[tuple[Model, set[str]]]:
    """The models whose methods it has; of two sets of which one holds the other, the larger counts."""
    having = [
        (set(methods), model, role)
        for model in MODELS
        for role, sets in model.ducks.items()
        for methods in sets
        if all(_has(cls, method) for method in methods)
    ]
    for model in MODELS:
        roles = {role for has, of, role in having if of is model and not any(has < other for other, _, _ in having)}
        if roles:
            yield model, roles


def _has(cls: type, method: str) -> bool:
    # Static: no property and no `__getattr__` of the user's runs.
    found = inspect.getattr_static(cls, method, None)
    return callable(found) or isinstance(found, classmethod)


def _article(model: Model) -> str:
    return f"{'an' if model.name[0] in 'aeiou' else 'a'} {model.name}"


def qualified(cls: type) -> str:
    """The name of a class with its module, as the table has it."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _what_would_fit(role: Role) -> str:
    bases = [names[0] for model in MODELS if (names := model.classes.get(role))]
    methods = [
        " and ".join(f"{method}()" for method in methods) for model in MODELS for methods in model.ducks.get(role, ())
    ]
    text = f"a subclass of {', '.join(bases)}"
    return f"{text}, or a class with {'; or with '.join(dict.fromkeys(methods))}" if methods else text
