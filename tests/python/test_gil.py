"""A function that keeps the GIL to itself stalls what needs it, and nothing else."""

import threading

from harness import create, rows, value, wait_until

# numpy's memory belongs to Python objects: whoever lets go of it needs the GIL.
ARRAYS = """
import numpy
import pyarrow

def arrays():
    while True:
        yield pyarrow.record_batch({"a": pyarrow.array(numpy.arange(4096))})
"""
# PyDLL does not give the GIL up while its functions run.
HOG = """
import ctypes
import pathlib

def hog():
    pathlib.Path({begun!r}).touch()
    ctypes.PyDLL(None).sleep(4)
    pathlib.Path({ended!r}).touch()
    return [1]
"""


def test_others_are_answered_while_memory_of_python_waits_for_its_release(server, connection, tmp_path):
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    create(connection, "arrays", "a int64", ARRAYS, mode="streaming")
    create(connection, "hog", "n int64", HOG.format(begun=str(begun), ended=str(ended)), mode="batch")
    over = threading.Event()

    def read():
        with server.connect() as own, own.cursor() as cursor:
            cursor.execute("SELECT a FROM arrays")
            for _ in cursor.fetch_record_batch():
                if over.is_set():
                    break

    def hold():
        with server.connect() as own:
            rows(own, "SELECT * FROM hog")

    threads = [threading.Thread(target=work) for work in (read, read, hold)]
    for thread in threads:
        thread.start()
    try:
        wait_until(begun.exists, "the GIL is held")
        for _ in range(20):
            assert value(connection, "SELECT 1") == 1
        with server.connect() as another:
            assert value(another, "SELECT 1") == 1
        assert not ended.exists(), "the answers came when the GIL was free again"
    finally:
        over.set()
        for thread in threads:
            thread.join()
