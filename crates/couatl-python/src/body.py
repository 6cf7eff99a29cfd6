"""What Couatl does with a stream's body in Python itself: check it, make a module of it, and show its exceptions.

It is Python because `ast`, `inspect`, `linecache` and `traceback` are; the host calls it through its C API. Nothing
here runs the body but `load`.
"""

import ast
import difflib
import functools
import inspect
import linecache
import re
import sys
import traceback
import types

MISSING = object()
SCOPES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Refused(Exception):
    """The definition does not hold together; the message is for the user."""


class Body:
    """A compiled body. `first_line` is the line of the statement on which it begins, so that lines count from there."""

    def __init__(self, kind, name, text, first_line):
        self.file_name = f"<{kind} {name}>"
        word = re.sub(r"\W", "_", name)
        self.module_prefix = f"couatl_{kind}_{word}_"
        self.text = "\n" * (first_line - 1) + text
        try:
            self.tree = ast.parse(self.text, self.file_name)
            self.code = compile(self.text, self.file_name, "exec", dont_inherit=True)
        except SyntaxError as error:
            raise Refused(f"the body does not compile: {describe_syntax_error(error)}") from None
        except ValueError as error:
            raise Refused(f"the body does not compile: {error}") from None
        except (RecursionError, MemoryError):
            raise Refused("the body does not compile: it is nested too deeply for Python") from None
        self.bindings, self.open = top_level_bindings(self.tree)
        self.is_program = "ekuiper" in text and is_program(self.tree)
        del self.tree

    def show_lines(self):
        """Lets tracebacks, warnings and inspect find the text."""
        lines = [line + "\n" for line in self.text.split("\n")]
        linecache.cache[self.file_name] = (len(self.text), None, lines, self.file_name)

    def check_functions(self, roles):
        """Checks (role, name, arguments, explicit) of every function that the definition names."""
        if self.is_program:
            # What it offers is known when it has run.
            return
        for role, name, arguments, explicit in roles:
            if not explicit:
                continue
            if not self.open and name not in self.bindings:
                raise Refused(f"the body does not define the {role} function '{name}'{self.hint(name)}")
            problem = misfit(self.bindings.get(name, ()), arguments, role)
            if problem:
                raise Refused(f"{role} function '{name}' {problem}")
        read, write = roles[0][1], roles[1][1]
        if not self.open and read not in self.bindings and write not in self.bindings:
            names = f"'{read}'" if read == write else f"'{read}' or '{write}'"
            raise Refused(
                f"the body defines no function {names} (the name of the stream, unless read_function_name or "
                f"write_function_name say another){self.hint(read)}"
            )
        for role, name, _, _ in roles[:2]:
            # An `async def` fits no role, whoever named it.
            definitions = self.bindings.get(name, ())
            if definitions and all(isinstance(node, ast.AsyncFunctionDef) for node in definitions):
                raise Refused(f"{role} function '{name}' {ASYNC}")

    def check_function(self, role, name, arguments):
        """Checks what a function of SQL calls."""
        if self.is_program:
            return
        is_aggregate = role == "aggregate"
        if not self.open and name not in self.bindings:
            raise Refused(f"the body does not define '{name}'{self.hint(name)}")
        definitions = self.bindings.get(name, ())
        kinds = {type(node) for node in definitions}
        if is_aggregate and kinds == {ast.FunctionDef}:
            raise Refused(f"'{name}' is a function; an aggregate is a class with process(), merge() and finalize()")
        if kinds == {ast.ClassDef} and not is_aggregate:
            members = {member for node in definitions for member in top_level_bindings(node)[0]}
            if {"process", "finalize"} <= members:
                raise Refused(f"class '{name}' is an aggregate; say CREATE AGGREGATE FUNCTION")
            return
        if kinds == {ast.ClassDef}:
            self.check_methods(name, definitions, arguments)
        problem = misfit(definitions, 0 if is_aggregate else arguments, role)
        if problem:
            raise Refused(f"'{name}' {problem}")

    def check_methods(self, name, definitions, arguments):
        """Checks the methods of an aggregate, as far as its class shows them."""
        for node in definitions:
            members, open_ended = top_level_bindings(node)
            missing = [method for method in ("process", "finalize") if method not in members]
            if (
                missing
                and not open_ended
                and not node.bases
                and not node.decorator_list
                and "__getattr__" not in members
            ):
                methods = " and no ".join(f"{method}()" for method in missing)
                raise Refused(f"class '{name}' has no {methods}, which an aggregate has")
            for method, count in (("process", arguments), ("merge", 1), ("finalize", 0)):
                problem = misfit(members.get(method, ()), count + 1, "method")
                if problem:
                    raise Refused(f"{name}.{method}() {problem}")

    def hint(self, name):
        names = sorted(self.bindings)
        if not names:
            return "; it defines no names at its top level"
        near = difflib.get_close_matches(name, names, 1)
        if near:
            return f"; did you mean '{near[0]}'?"
        shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        return f"; it defines: {shown}"

    def load(self, number):
        """A fresh module, not yet run: `run` does that, so that what it raises is the body's own."""
        module = types.ModuleType(f"{self.module_prefix}{number}")
        module.__file__ = self.file_name
        self.show_lines()
        # dataclasses, pickle and typing look a class's module up by name.
        sys.modules[module.__name__] = module
        return module

    def format(self, error):
        self.show_lines()
        frames = error.__traceback__
        # What calls the functions of a body is nothing that its author knows of.
        while frames is not None and frames.tb_next and calls_bodies(frames.tb_frame):
            frames = frames.tb_next
        text = "".join(traceback.format_exception(type(error), error, frames)).rstrip("\n")
        # The body's own classes are shown as those of a script are: the module is one of ours, and another each time.
        return re.sub(rf"\b{re.escape(self.module_prefix)}\d+\.", "", text)


def calls_bodies(frame):
    """Whether a frame is of what calls the functions and classes of a body: the host's own, or the SDK's."""
    module = str(frame.f_globals.get("__name__"))
    return frame.f_code.co_filename == "couatl/function.py" or module.partition(".")[0] == "couatl"


ASYNC = (
    "is asynchronous (async def): a stream's functions are called as plain functions; "
    "make it a plain def, and run a coroutine inside it with asyncio.run"
)


def describe_syntax_error(error):
    place = f"line {error.lineno} of the statement" if error.lineno else "an unknown line"
    text = f"{error.msg} at {place}"
    if error.text:
        line = error.text.rstrip("\n")
        text += f"\n    {line.lstrip()}"
        if error.offset and error.offset > 0:
            column = error.offset - 1 - (len(line) - len(line.lstrip()))
            width = 1
            if error.end_lineno == error.lineno and error.end_offset and error.end_offset > error.offset:
                width = error.end_offset - error.offset
            if column >= 0:
                text += f"\n    {' ' * column}{'^' * width}"
    return text


def top_level_bindings(tree):
    """The names bound at the top level, each with the nodes that bind it, and whether there may be others."""
    bindings = {}
    star = False

    def bind(name, node):
        bindings.setdefault(name, []).append(node)

    def targets(root, owner):
        # Iterative: an expression may be nested more deeply than Python recurses.
        stack = [root]
        while stack:
            part = stack.pop()
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                bind(part.id, owner)
            elif not isinstance(part, SCOPES):
                stack.extend(ast.iter_child_nodes(part))

    def visit(statements):
        nonlocal star
        for node in statements:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                bind(node.name, node)
                continue
            if isinstance(node, ast.Delete):
                # Elsewhere than at the top level it may not run.
                for name in deleted(node) if statements is tree.body else ():
                    bindings.pop(name, None)
                continue
            if isinstance(node, ast.AnnAssign) and node.value is None:
                targets(node.annotation, node)
                continue
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                for alias in node.names:
                    if alias.name == "*":
                        star = True
                    else:
                        bind(alias.asname or alias.name.split(".")[0], node)
                continue
            # Compound statements bind in their headers (for, with, except) and in their blocks.
            for field, value in ast.iter_fields(node):
                blocks = value if isinstance(value, list) else [value]
                for block in blocks:
                    if isinstance(block, ast.stmt):
                        visit([block])
                    elif isinstance(block, (ast.ExceptHandler, ast.match_case)):
                        if getattr(block, "name", None):
                            bind(block.name, block)
                        if isinstance(block, ast.match_case):
                            patterns(block.pattern)
                        visit(block.body)
                    elif isinstance(block, ast.AST) and field != "body":
                        targets(block, node)

    def patterns(pattern):
        for part in ast.walk(pattern):
            for field in ("name", "rest"):
                if isinstance(getattr(part, field, None), str):
                    bind(getattr(part, field), part)

    visit(tree.body)
    return bindings, star


def deleted(node):
    """The names that a `del` unbinds."""
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Del)]


def parameters(node):
    """The `ast.arguments` of what this node binds a name to, and how many of them the call fills by itself; None if
    they cannot be told without running the body."""
    if isinstance(node, ast.FunctionDef):
        return None if node.decorator_list else (node.args, 0)
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        # A name in a tuple is bound to a part of the value, and a lambda has none.
        return (node.value.args, 0) if isinstance(node.value, ast.Lambda) else None
    if isinstance(node, ast.ClassDef):
        return constructor(node)
    return None


def constructor(node):
    """The parameters with which a class is called: those of its `__init__`, after self."""
    # A decorator, a metaclass or a base may bring another constructor.
    if node.decorator_list or node.keywords or node.bases:
        return None
    members, open_ended = top_level_bindings(node)
    if open_ended or "__new__" in members:
        return None
    inits = members.get("__init__", [])
    if not inits:
        return NO_PARAMETERS, 0
    if len(inits) > 1 or not isinstance(inits[0], ast.FunctionDef):
        return None
    found = parameters(inits[0])
    return (found[0], 1) if found and (found[0].posonlyargs or found[0].args) else None


NO_PARAMETERS = ast.parse("lambda: None", mode="eval").body.args


def misfit(definitions, arguments, role):
    """Why a function so defined cannot be called with this many positional arguments; None if it may be possible."""
    problem = None
    for node in definitions:
        if isinstance(node, ast.AsyncFunctionDef) and not node.decorator_list:
            problem = ASYNC
            continue
        found = parameters(node)
        if found is None:
            return None
        spec, filled = found
        positional = len(spec.posonlyargs) + len(spec.args)
        required = max(0, positional - len(spec.defaults) - filled)
        positional -= filled
        keywords = [arg.arg for arg, default in zip(spec.kwonlyargs, spec.kw_defaults) if default is None]
        if not keywords and required <= arguments and (spec.vararg or arguments <= positional):
            return None
        if keywords:
            problem = f"requires the keyword argument '{keywords[0]}', and is called with positional arguments alone"
            continue
        if spec.vararg:
            takes = f"at least {required}"
        elif required == positional:
            takes = str(positional)
        else:
            takes = f"{required} to {positional}"
        plural = "" if takes == "1" else "s"
        problem = f"takes {takes} positional argument{plural}, and is called with {arguments}: {WHY[role](arguments)}"
    return problem


def columns(count):
    return f"one for each of the {count} columns" if count != 1 else "one for the only column"


PARAMETERS = {0: "there are no parameters", 1: "one for the only parameter"}

WHY = {
    "read": lambda count: "a read function receives no arguments; configuration comes through the init function",
    "write": columns,
    "init": lambda count: (
        "init_function_parameters is its only argument" if count else "init_function_parameters is not set, or empty"
    ),
    "deinit": lambda count: "a deinit function receives no arguments",
    "scalar": lambda count: PARAMETERS.get(count, f"one for each of the {count} parameters"),
    "table": lambda count: PARAMETERS.get(count, f"one for each of the {count} parameters"),
    "method": lambda count: "self, and what it is given",
    "aggregate": lambda count: "one is made for each group, without arguments",
}


def entry_point(module, name, role, arguments):
    """The function of a loaded module, ready to be called with that many arguments."""
    part = part_of_program(module, name, role)
    if part is not None:
        return part
    function = getattr(module, name, MISSING)
    if function is MISSING:
        names = sorted(name for name in vars(module) if not name.startswith("__"))
        near = difflib.get_close_matches(name, names, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise Refused(f"the body has run and does not define the {role} function '{name}'{hint}")
    return usable(function, name, role, arguments)


def is_program(tree):
    """Whether a body is the program of an eKuiper plugin."""
    try:
        from couatl.compat import ekuiper
    except ImportError:
        # A program that embeds the engine need not have the package.
        return False
    return ekuiper.is_program(tree)


def part_of_program(module, name, role):
    """What the program of a body offers by a name; None where the body is none, or defines the name itself."""
    if "__couatl_plugin__" not in vars(module) or role not in PARTS:
        return None
    from couatl.compat import ekuiper

    try:
        return ekuiper.offered(ekuiper.started_by(module), PARTS[role], name)
    except LookupError as error:
        if callable(getattr(module, name, None)):
            return None
        raise Refused(str(error)) from None


# What a part of a program is called in the role of a function.
PARTS = {"read": "source", "write": "sink", "scalar": "function", "aggregate": "function"}

# What a connector is called in the role of a function.
CONNECTOR_ROLES = {"read": "source", "write": "sink", "scalar": "function", "table": "transform"}

# What is none, and may be asked about often.
PLAIN = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.GeneratorType, functools.partial, list)


def is_connector(thing, role):
    """Whether it is of a class that the SDK knows, or such a class itself."""
    if isinstance(thing, PLAIN):
        return False
    try:
        from couatl import _models
    except ImportError:
        # A program that embeds the engine need not have the package.
        return False
    return _models.is_connector(thing, CONNECTOR_ROLES[role])


def usable(function, name, role, arguments):
    """What may be used in a role: a connector, or what can be called with that many arguments."""
    if role == "aggregate" or (role in CONNECTOR_ROLES and is_connector(function, role)):
        return function
    return callable_with(function, name, role, arguments)


def callable_with(function, name, role, arguments):
    if not callable(function):
        raise Refused(f"{role} function '{name}' is not callable: it is of type {type(function).__name__}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise Refused(f"{role} function '{name}' {ASYNC}")
    if role not in ("read", "table") and inspect.isgeneratorfunction(function):
        raise Refused(
            f"{role} function '{name}' is a generator (there is a yield in it): calling it would run nothing; "
            "make it a function without yield"
        )
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return function
    try:
        signature.bind(*[None] * arguments)
    except TypeError as error:
        raise Refused(
            f"{role} function '{name}{signature}' cannot be called with {arguments} positional argument"
            f"{'' if arguments == 1 else 's'} ({error}): {WHY[role](arguments)}"
        ) from None
    return function


def unload(module_name):
    sys.modules.pop(module_name, None)
