"""Tracks that sound alike: cosine similarity over the embeddings, all of them in memory."""

from __future__ import annotations

import sqlite3
import threading
from typing import Final

import numpy as np
import numpy.typing as npt

from services.gateway.view.search import rows_by_seq
from services.library.row import Row

_AT_ONCE: Final = 5000
#: More are ranked than asked for: some may have been replaced by newer answers since they were read.
_SPARE: Final = 20


class Neighbours:
    """The embeddings of a view, read as they come. Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seqs = np.empty(0, np.int64)
        self._vectors = np.empty((0, 0), np.float32)
        self._stale = False

    def forget_removed(self) -> None:
        """Tracks were removed: their embeddings are let go before the next look."""
        self._stale = True

    def of(self, connection: sqlite3.Connection, request_id: str, limit: int) -> list[tuple[float, Row]] | None:
        """The most similar other tracks, each with its cosine similarity; None if this one has no embedding."""
        found = connection.execute(
            "SELECT seq, vector FROM embeddings JOIN tracks USING (seq) WHERE tracks.id = ?", (request_id,)
        ).fetchone()
        if found is None:
            return None
        own, vector = int(found[0]), np.frombuffer(found[1], "<f4")
        seqs, vectors = self._read(connection, len(vector))
        similarity = vectors @ vector
        similarity[seqs == own] = -np.inf
        most = min(limit + _SPARE, len(seqs))
        best = np.argpartition(-similarity, most - 1)[:most]
        best = best[np.argsort(-similarity[best], kind="stable")]
        rows = rows_by_seq(connection, [int(seqs[place]) for place in best if np.isfinite(similarity[place])])
        ranked = [
            (round(float(min(1.0, max(0.0, similarity[place]))), 4), rows[seq])
            for place in best
            if (seq := int(seqs[place])) in rows
        ]
        return ranked[:limit]

    def _read(
        self, connection: sqlite3.Connection, width: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The numbers of the answers and their embeddings [n, width], with those that came since the last time."""
        with self._lock:
            if self._vectors.shape[1] != width:
                self._seqs, self._vectors = np.empty(0, np.int64), np.empty((0, width), np.float32)
            if self._stale:
                self._stale = False
                left = [seq for (seq,) in connection.execute("SELECT seq FROM embeddings")]
                stay = np.isin(self._seqs, np.array(left, np.int64))
                self._seqs, self._vectors = self._seqs[stay], self._vectors[stay]
            while True:
                last = int(self._seqs[-1]) if len(self._seqs) else 0
                found = connection.execute(
                    "SELECT seq, vector FROM embeddings WHERE seq > ? AND length(vector) = ? ORDER BY seq LIMIT ?",
                    (last, 4 * width, _AT_ONCE),
                ).fetchall()
                if not found:
                    return self._seqs, self._vectors
                added = np.frombuffer(b"".join(vector for _, vector in found), "<f4").reshape(len(found), width)
                self._seqs = np.concatenate((self._seqs, np.array([seq for seq, _ in found], np.int64)))
                self._vectors = np.concatenate((self._vectors, added))
