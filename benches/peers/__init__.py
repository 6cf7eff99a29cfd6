"""Other systems over the same rows, each the fastest way that its documentation shows for rows from Python.

A module per system. It has `PACKAGE`, the name of its distribution; `DOCUMENTED`, the page which shows that way; and
`rows(count)`, and perhaps `batches(count)`, or `answers(count)` where `rows` only moves them. These prepare what is not
to be measured and return a function that runs the query once. What that function returns is compared with the query's
answer, as far as the system computes it.

They run in an environment of their own (`python -m benches.peers`), which has no Couatl: nothing here may import more
of this folder than `benches.source`.
"""
