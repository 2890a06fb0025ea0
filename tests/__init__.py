"""The tests. Like the command line, they keep numpy's matrix products to one thread; child processes inherit it."""

import os

from services.cli.main import THREADS_OF_BLAS

for name in THREADS_OF_BLAS:
    os.environ.setdefault(name, "1")
