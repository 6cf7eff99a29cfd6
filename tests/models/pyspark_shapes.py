"""PySpark, imported without its warnings, and the columns that its sources and sinks are tested with."""

import warnings

import pytest
from couatl.testing import Columns

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    datasource = pytest.importorskip("pyspark.sql.datasource")
    from pyspark.sql import types

TWO = Columns(["id", "name"], ["int64", "string"])
ONE = Columns(["id"], ["int64"])
STRUCT = types.StructType().add("id", types.LongType()).add("name", types.StringType())
