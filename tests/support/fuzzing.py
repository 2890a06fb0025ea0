"""How many cases a fuzz test tries: a few where all tests run, many in ``make fuzz``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from hypothesis import HealthCheck, Phase, settings

#: Set to ``long`` by ``make fuzz``.
PROFILE: Final = os.environ.get("TONESTREAM_FUZZ", "quick")


def cases(quick: int, long: int) -> Callable[[Any], Any]:
    """A decorator for hypothesis tests: so many cases by the profile, and no limit of time for any one of them.

    The quick run tries the same cases every time; the long run tries new ones.
    """
    is_long = PROFILE == "long"
    return settings(
        max_examples=long if is_long else quick,
        derandomize=not is_long,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )
