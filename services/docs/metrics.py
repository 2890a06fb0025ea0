"""docs/metrics.md: every metric, as it is declared."""

from __future__ import annotations

from services.docs.tables import table
from shared.runtime.metrics import DECLARED, Label

_HEAD = """# Metrics

Every worker serves them on `/metrics` of its health port (`TONESTREAM_HEALTH_PORT`; 8080 in the images), the gateway on
`/metrics` of its own. A gateway with API keys wants one of them. `docker compose --profile observe up` brings
Prometheus, Grafana with dashboards, and [alerts](runbooks.md). This page is made from `shared/runtime/metrics.py` by
`make docs`.

Names end with their unit; counters end with `_total`. A histogram has the series `_bucket`, `_sum` and `_count`. No
label holds a URL, a track or a request. Each process also has `process_cpu_seconds_total`,
`process_resident_memory_bytes` and the others of its kind."""


def metrics() -> str:
    """The page."""
    rows = [
        (
            f"`{one.name}`",
            one.kind,
            one.unit,
            one.meaning,
            ", ".join(f"`{label.name}`" for label in one.labels),
        )
        for one in DECLARED
    ]
    labels = {label.name: label for one in DECLARED for label in one.labels}
    several = {
        name: sorted({_values(label) for one in DECLARED for label in one.labels if label.name == name})
        for name in labels
    }
    values = [(f"`{name}`", "; or ".join(said)) for name, said in sorted(several.items())]
    parts = [
        _HEAD,
        table(("metric", "kind", "unit", "meaning", "labels"), rows),
        "## Labels",
        table(("label", "values"), values),
    ]
    return "\n\n".join(parts) + "\n"


def _values(label: Label) -> str:
    if label.name == "status" and len(label.values) > 10:
        return "the status codes of HTTP"
    return label.bound or ", ".join(f"`{value}`" for value in sorted(label.values))
