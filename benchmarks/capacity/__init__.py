"""What an installation needs: measured costs a track, the arithmetic and the simulation that follow from them.

``measure`` runs the pipeline on a real broker and a real Redis and writes ``measured.json``. ``arithmetic`` turns the
costs into core-hours, bandwidth and memory. ``simulation`` adds queues, batches, partitions and an autoscaler.
``report`` writes the tables of docs/capacity.md, ``plot`` its figures.
"""
