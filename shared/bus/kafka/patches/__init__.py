"""Everything that reaches below the public surface of kafka-python 3.0.12, and nothing else in the project does.

Each function or class says in its docstring what is wrong or missing there. ``tests/unit/bus/test_kafka_patches.py``
looks for private attributes elsewhere, and fails when a patch is no longer needed; where only a broker shows that, a
test in ``tests/contract`` does.

- ``transactions``: steps of a transaction with a time limit; closing a producer that cannot be flushed;
- ``consumer``: a heartbeat on demand, committed offsets of many partitions, parked records, positions;
- ``group``: the answer to a join that arrives between two polls, and polls during a rebalance;
- ``network``: refusals for good, and what was received together with the end of a connection;
- ``reach``: when a broker last answered;
- ``unreadable`` and ``codecs``: batches that cannot be read, or unpack to more than a worker's memory.
"""
