"""Similar tracks of a large library."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np

from services.gateway.view.database import Database, add_derived
from services.gateway.view.similar import Neighbours
from tests.support.gateway_bench import answer

TRACKS, WIDTH = 50_000, 200


def test_among_50000_tracks_the_similar_ones_are_found_within_50_ms(tmp_path: Path) -> None:
    vectors = np.random.default_rng(7).standard_normal((TRACKS, WIDTH), dtype=np.float32)
    vectors[1] = vectors[0] + 0.01
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored = [(seq, vector.tobytes()) for seq, vector in enumerate(vectors, 1)]
    database = Database(tmp_path / "library.sqlite")
    neighbours = Neighbours()
    try:
        for seq in (1, 2, 3):
            result = answer(f"r{seq}")
            database.write(partial(add_derived, seq=seq, result=result, finished_at=1.0))
        database.write(lambda connection: connection.execute("DELETE FROM embeddings"))
        database.write(lambda connection: connection.executemany("INSERT INTO embeddings VALUES (?, ?)", stored))
        times = []
        with database.reading() as connection:
            for _ in range(10):
                began = time.perf_counter()
                found = neighbours.of(connection, "r1", 20)
                times.append(time.perf_counter() - began)
    finally:
        database.close()
    assert found is not None and found[0][1].id == "r2" and found[0][0] > 0.99
    assert min(times[1:]) < 0.05, "the embeddings stay in memory after the first time"
