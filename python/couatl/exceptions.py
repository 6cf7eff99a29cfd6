"""What goes wrong, as PEP 249 names it. Each error has its `kind`, a word that programs can rely on.

What the code of a stream raises is raised as itself, and is none of these.

    >>> import couatl
    >>> try:
    ...     couatl.Session().sql("SELECT nothing FROM nowhere")
    ... except couatl.exceptions.ProgrammingError as error:
    ...     print(error.kind)
    not-found
"""

from __future__ import annotations

__all__ = [
    "DataError",
    "DatabaseError",
    "Error",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
]


class Error(Exception):
    """The base of all."""

    #: What sort of failure it is, such as ``not-found``.
    kind = "internal"


class InterfaceError(Error):
    """Something was asked of a result or a session that it cannot give any more."""


class DatabaseError(Error):
    """The base of what a statement fails with."""


class ProgrammingError(DatabaseError):
    """The statement is wrong, or names what is not there, or is there already, or may not be touched."""


class DataError(DatabaseError):
    """A value does not fit."""


class OperationalError(DatabaseError):
    """The statement could have been run, and was not: cancelled, out of time, out of memory."""


class NotSupportedError(DatabaseError):
    """It is not offered."""


class InternalError(DatabaseError):
    """A defect of Couatl, or of what it is built on."""


BY_KIND: dict[str, type[Error]] = {
    "invalid-syntax": ProgrammingError,
    "invalid-definition": ProgrammingError,
    "invalid-setting": ProgrammingError,
    "invalid-argument": ProgrammingError,
    "not-found": ProgrammingError,
    "already-exists": ProgrammingError,
    "permission-denied": ProgrammingError,
    "type-mismatch": DataError,
    "python-exception": OperationalError,
    "cancelled": OperationalError,
    "timeout": OperationalError,
    "worker-lost": OperationalError,
    "resources-exhausted": OperationalError,
    "unavailable": OperationalError,
    "unsupported": NotSupportedError,
    "internal": InternalError,
}


def of_kind(kind: str, message: str) -> Error:
    """The exception for an error of the engine."""
    error = BY_KIND.get(kind, InternalError)(message)
    error.kind = kind
    return error
