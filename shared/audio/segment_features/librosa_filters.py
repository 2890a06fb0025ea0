"""librosa's filters, also where numba finds no folder for what it compiles.

numba looks for such a folder when librosa is imported, not when something is compiled. In an install that cannot be
written to, without a home that can, it finds none and the import fails. Nothing that is used here is compiled: an empty
folder that is gone after the import will do, and costs nothing.
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
