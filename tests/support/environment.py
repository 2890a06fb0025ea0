"""The environment of a worker that a test starts: the test's own servers and names, and nothing of whoever runs it."""

from __future__ import annotations

import os
from pathlib import Path


def worker_environment(
    folder: Path, bootstrap_servers: str, redis_url: str, prefix: str, **settings: str
) -> dict[str, str]:
    """``settings`` by their names in Settings. Blobs go below ``folder``."""
    known = {
        "kafka_bootstrap_servers": bootstrap_servers,
        "redis_url": redis_url,
        "redis_prefix": prefix,
        "topic_prefix": prefix,
        "blob_url": f"file://{folder}/blobs",
    }
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("TONESTREAM_")},
        **{f"TONESTREAM_{name.upper()}": value for name, value in (known | settings).items()},
    }
