"""librosa's filters, even if numba finds no cache folder.

numba looks for its cache folder while librosa is imported. In a read-only install without a writable home it finds
none, and the import fails. Nothing used here is compiled, so an empty folder that exists during the import is enough.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from importlib import import_module
from types import ModuleType
from typing import Any, Final

_LOCK: Final = threading.Lock()


def librosa_filters() -> ModuleType:
    """``librosa.filters``. The first call takes half a second."""
    with _LOCK:
        try:
            return import_module("librosa.filters")
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return _with_temporary_cache()


def _with_temporary_cache() -> ModuleType:
    numba: Any = import_module("numba")
    for name in [name for name in sys.modules if name.partition(".")[0] == "librosa"]:
        del sys.modules[name]  # half imported
    configured = numba.config.CACHE_DIR
    with tempfile.TemporaryDirectory(prefix="tonestream-numba-") as folder:
        numba.config.CACHE_DIR = folder
        try:
            return import_module("librosa.filters")
        finally:
            numba.config.CACHE_DIR = configured
