"""What Couatl does with functions in Python itself: calls for each row, aggregates, and rows for those who read them.

It is Python because it is calls of Python, one after the other; the host calls it through its C API.
"""

import collections
import inspect
import itertools


class Refused(Exception):
    """The function does not hold together; the message is for the user."""


def scalar(thing, is_called_by_row):
    """What is called with the number of rows and a list, or an array, for each column."""
    function = adapted(thing, False)

    def by_row(rows, *columns):
        if not columns:
            return [function() for _ in range(rows)]
        if len(columns) == 1:
            return [function(value) for value in columns[0]]
        values = list(map(function, *columns))
        if len(values) < rows:
            # It ends a map, as the end of a column does.
            raise RuntimeError(f"the function raised StopIteration for row {len(values) + 1}")
        return values

    def by_column(rows, *columns):
        return listed(function(*columns))

    # Functions of other systems take values.
    return by_row if is_called_by_row or function is not thing else by_column


def as_numpy(array):
    """A NumPy array of the values of a pyarrow array; a masked one where there are NULLs."""
    import numpy
    import pyarrow

    kind = array.type
    if pyarrow.types.is_nested(kind) or pyarrow.types.is_interval(kind) or isinstance(kind, pyarrow.BaseExtensionType):
        # NumPy would make floats of integers beside NULLs, bytes of a uuid, and what only Pandas has of an interval.
        objects = numpy.empty(len(array), dtype=object)
        for row, value in enumerate(array.to_pylist()):
            objects[row] = value
        return numpy.ma.MaskedArray(objects, [value is None for value in objects]) if array.null_count else objects
    if not array.null_count:
        return array.to_numpy(zero_copy_only=False)
    mask = array.is_null().to_numpy(zero_copy_only=False)
    is_filled = pyarrow.types.is_primitive(array.type) and not pyarrow.types.is_temporal(array.type)
    filled = array.fill_null(0 if not pyarrow.types.is_boolean(array.type) else False) if is_filled else array
    return numpy.ma.MaskedArray(filled.to_numpy(zero_copy_only=False), mask)


def is_numpy(values):
    """Whether it is an array of NumPy."""
    return type(values).__module__.partition(".")[0] == "numpy" and bool(getattr(values, "ndim", 0))


def listed(values):
    """A list of an array of NumPy that Arrow has no type for, with None where it is masked; anything else as it is."""
    if not is_numpy(values) or values.ndim != 1:
        return values
    if values.dtype == object:
        return values.tolist()
    if values.dtype.kind in "mM":
        import numpy

        # Arrow knows no other units, and each value says its own.
        known = {"m": ("s", "ms", "us", "ns"), "M": ("s", "ms", "us", "ns", "D")}[values.dtype.kind]
        if numpy.datetime_data(values.dtype)[0] not in known:
            return [None if value is numpy.ma.masked else value for value in values]
    return values


def from_numpy(values):
    """What a function gave, as Arrow can take it: an array of NumPy as one of pyarrow, and structs as a column."""
    if type(values).__module__.partition(".")[0] == "pyarrow":
        import pyarrow

        if pyarrow.types.is_struct(getattr(values, "type", pyarrow.null())):
            # By itself it would be a batch, with its members as columns.
            return pyarrow.table([values], names=["result"])
        return values
    if not is_numpy(values):
        return values
    import numpy
    import pyarrow

    if values.ndim != 1:
        raise Refused(f"expected an array of one dimension, got one of shape {values.shape}")
    mask = numpy.ma.getmaskarray(values) if isinstance(values, numpy.ma.MaskedArray) else None
    return pyarrow.array(numpy.asarray(values), mask=mask, from_pandas=False)


def adapted(thing, is_aggregate):
    """What a body names: itself, or what stands for it where it is a function of another system."""
    model = adapter_of(thing, "function")
    if model is None:
        return thing
    function = model.as_function(thing)
    if function.is_aggregate != is_aggregate:
        kind, words = ("one", "CREATE AGGREGATE FUNCTION") if function.is_aggregate else ("none", "CREATE FUNCTION")
        raise Refused(f"its is_aggregate() says that it is {kind}: say {words}")
    return (lambda: Whole(function)) if is_aggregate else function


def adapter_of(thing, role):
    """The module that adapts what follows the model of another system; None where it does not."""
    if inspect.isroutine(thing):
        return None
    try:
        from couatl import _models
    except ImportError:
        # A program that embeds the engine need not have the package.
        return None
    if not _models.is_connector(thing, role):
        return None
    return _models.recognise(thing, role).adapter()


class Whole:
    """The group of a function that wants all of its values at once."""

    def __init__(self, function):
        self.function = function
        self.columns = None

    def process(self, *columns):
        self.columns = self.columns or [[] for _ in columns]
        for all_values, values in zip(self.columns, columns):
            all_values.extend(values)

    def merge(self, other):
        if other.columns is not None:
            self.process(*other.columns)

    def finalize(self):
        # Of no rows it is not asked: it would look for the lists of its arguments.
        return None if self.columns is None else self.function(*self.columns)


class Kept:
    """The group of a class without merge(): what it is called with is kept until everything is there."""

    def __init__(self, make):
        self.make = make
        self.calls = []

    def process(self, *arguments):
        self.calls.append(arguments)

    def merge(self, other):
        self.calls += other.calls

    def finalize(self):
        group = self.make()
        for arguments in self.calls:
            done("process", group, called(group, "process", *arguments))
        value = called(group, "finalize")
        done("finalize", group, value)
        return value


def picked(column, rows):
    """Some rows of a list, or of an array of pyarrow or NumPy."""
    return [column[row] for row in rows] if isinstance(column, list) else column.take(rows)


def done(method, group, returned):
    """Refuses what has not been done yet: a coroutine, or a generator, which nobody runs."""
    yields = inspect.isgenerator(returned) or inspect.isasyncgen(returned)
    if hasattr(returned, "__await__") or yields:
        if inspect.iscoroutine(returned):
            returned.close()
        kind = "a generator" if yields else "a coroutine"
        raise Refused(f"{type(group).__name__}.{method}() returned {kind}, which nobody runs; make it a plain method")


def called(group, method, *arguments):
    """What a method gives. It says when it cannot be called so, and a StopIteration is no end of anything here."""
    function = getattr(group, method)
    name = type(group).__name__
    try:
        return function(*arguments)
    except TypeError as error:
        # Where the call itself has failed, nothing of the user's has run.
        if error.__traceback__.tb_next is None:
            raise Refused(f"{name}.{method}() cannot be called as it is: {error}") from None
        raise
    except StopIteration as error:
        raise RuntimeError(f"{name}.{method}() raised StopIteration, which ends nothing here") from error


def filled(method, group, returned):
    """The group after a method that fills it: itself, or the one that is returned in its place."""
    done(method, group, returned)
    if returned is not None and not isinstance(returned, type(group)):
        name = type(group).__name__
        raise Refused(f"{name}.{method}() returned {returned!r}; expected None, as it fills self, or a {name}")
    return group if returned is None else returned


def aggregator(make):
    """What makes the object of a group: one that can be merged, whether or not its class can."""
    if not callable(make):
        raise Refused(f"expected a class with process(), merge() and finalize(), got {make!r} ({type(make).__name__})")
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        name = getattr(make, "__name__", type(make).__name__)
        raise Refused(f"expected '{name}' to be called without arguments for the object of a group ({error})") from None
    except (ValueError, NameError):
        # One in C, which does not say what it takes, or one whose annotations only type checkers know.
        pass
    one = make()
    missing = [method for method in ("process", "finalize") if not callable(getattr(one, method, None))]
    if missing:
        methods = " and no ".join(f"{method}()" for method in missing)
        raise Refused(f"{type(one).__name__} has no {methods}, which an aggregate has")
    merge = getattr(one, "merge", None)
    if callable(merge):
        return make
    if merge is not None:
        raise Refused(f"{type(one).__name__}.merge is {merge!r}; expected a method merge(self, other), or none")

    return lambda: Kept(make)


class Aggregations:
    """The aggregations of one use of a function, by number, and the states that are on their way between them."""

    def __init__(self, make, calls_by_row, unwraps):
        self.make = aggregator(adapted(make, True))
        self.calls_by_row = calls_by_row
        #: Whether a list of one value is that value.
        self.unwraps = unwraps
        self.groups = {}
        self.moving = {}
        self.numbers = itertools.count()

    def of(self, aggregation, count):
        groups = self.groups.setdefault(aggregation, [])
        groups.extend([None] * (count - len(groups)))
        return groups

    def group(self, groups, index):
        if groups[index] is None:
            groups[index] = self.make()
        return groups[index]

    def process(self, aggregation, indices, count, *columns):
        groups = self.of(aggregation, count)
        if not indices:
            return
        if count == 1:
            return self.take(self.group(groups, 0), columns)
        rows = collections.defaultdict(list)
        for row, index in enumerate(indices):
            rows[index].append(row)
        for index, of_group in rows.items():
            self.take(self.group(groups, index), [picked(column, of_group) for column in columns])

    def take(self, group, columns):
        for arguments in zip(*columns) if self.calls_by_row else [columns]:
            done("process", group, called(group, "process", *arguments))

    def merge(self, aggregation, indices, count, states):
        groups = self.of(aggregation, count)
        for index, state in zip(indices, states):
            other = self.arrived(state)
            if groups[index] is None:
                groups[index] = other
            else:
                groups[index] = filled("merge", groups[index], called(groups[index], "merge", other))

    def states(self, aggregation, first):
        groups = self.of(aggregation, first)
        leaving, groups[:first] = groups[:first], []
        return [self.leaving(self.make() if group is None else group) for group in leaving]

    def leaving(self, group):
        """The state of a group as bytes: its own, else the number by which it is found again."""
        if callable(getattr(group, "serialize", None)) and callable(getattr(group, "deserialize", None)):
            state = called(group, "serialize")
            if not isinstance(state, bytes):
                raise Refused(f"expected {type(group).__name__}.serialize() to give bytes, got {type(state).__name__}")
            return b"s" + state
        number = next(self.numbers)
        self.moving[number] = group
        return b"n%d" % number

    def arrived(self, state):
        if state[:1] == b"n":
            return self.moving.pop(int(state[1:]))
        group = self.make()
        # A class method makes a group of its own.
        return filled("deserialize", group, called(group, "deserialize", state[1:]))

    def values(self, aggregation, first, keeps):
        groups = self.of(aggregation, first)
        values = [self.value(self.group(groups, index)) for index in range(first)]
        if not keeps:
            del groups[:first]
        return values

    def value(self, group):
        value = called(group, "finalize")
        done("finalize", group, value)
        return value[0] if self.unwraps and isinstance(value, list) and len(value) == 1 else value

    def forget(self, aggregation):
        self.groups.pop(aggregation, None)


class Rows:
    """The rows of a table: named tuples, with the names of the columns where these can be."""

    def __init__(self, feed, names):
        self.names = names
        self.rows = named(feed, names)

    def __iter__(self):
        return self.rows

    def __next__(self):
        return next(self.rows)

    def elements(self):
        """What one object stands for in other systems: the value of an only column, else a dict by name."""
        return (row[0] if len(self.names) == 1 else dict(zip(self.names, row)) for row in self.rows)


def named(feed, names):
    row = collections.namedtuple("Row", names, rename=True)._make
    for rows, columns in feed:
        yield from map(row, zip(*columns)) if columns else itertools.repeat(row(()), rows)


def rows_of(feed, names):
    """The rows of what gives lists of columns."""
    return Rows(feed, names)


def columns_of(feed):
    """A tuple with a list, or an array, for each column, again and again."""
    for _, columns in feed:
        yield columns


def batches_of(feed, names):
    """Record batches of pyarrow."""
    import pyarrow

    for _, columns in feed:
        yield pyarrow.RecordBatch.from_arrays(list(columns), names=names)


def table(thing, is_transform, takes_list, names, arguments):
    """What a function that gives rows returns."""
    model = adapter_of(thing, "transform") if is_transform else None
    if model is None:
        return thing(*arguments)
    given = dict(zip(names, arguments))
    # The rows are what it reads; the values are its options.
    name = next(name for name, value in given.items() if isinstance(value, Rows) or inspect.isgenerator(value))
    rows = given.pop(name)
    found = model.as_transform(thing, given)(rows.elements() if isinstance(rows, Rows) else rows)
    # What a node emits is one element; where that is to be the value of an only column, a row is around it.
    return ((list(each),) if isinstance(each, (list, tuple)) else each for each in found) if takes_list else found
