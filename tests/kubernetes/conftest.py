"""These tests run only where somebody names a cluster that they may use."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("TONESTREAM_TEST_KUBERNETES") else ["test_*.py"]
