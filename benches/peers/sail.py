"""Sail: a Python data source of its Spark session, which yields tuples, or Arrow batches."""

import sys

import cloudpickle
from pysail.spark import SparkConnectServer
from pyspark.sql import SparkSession
from pyspark.sql.datasource import DataSource, DataSourceReader

from benches import source

PACKAGE = "pysail"
DOCUMENTED = "https://docs.lakesail.com/sail/latest/guide/sources/python"
BATCH_ROWS = 65_536

# The source travels by value, since the server's interpreter does not import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
cloudpickle.register_pickle_by_value(source)


class Reader(DataSourceReader):
    def __init__(self, count, shape):
        self.count, self.shape = count, shape

    def read(self, partition):
        if self.shape == "rows":
            return source.generate(self.count)
        return iter(source.batches(self.count, BATCH_ROWS))


class Source(DataSource):
    @classmethod
    def name(cls):
        return "rows"

    def schema(self):
        return "a bigint, b double, c string"

    def reader(self, schema):
        return Reader(int(self.options["count"]), self.options["shape"])


def rows(count, shape="rows"):
    server = SparkConnectServer()
    server.start(background=True)
    _, port = server.listening_address
    spark = SparkSession.builder.remote(f"sc://localhost:{port}").getOrCreate()
    spark.dataSource.register(Source)

    def query(_keep=server):
        frame = spark.read.format("rows").option("count", str(count)).option("shape", shape).load()
        frame.createOrReplaceTempView("rows")
        return tuple(spark.sql("SELECT count(*), sum(a), max(c) FROM rows").collect()[0])

    return query


def batches(count):
    return rows(count, "batches")
