"""Write the rules of ``deploy/prometheus/rules`` as the resource that an operator of Prometheus reads, into
``deploy/kubernetes/components/monitoring/rules.yaml``. Needs PyYAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

DEPLOY: Final = Path(__file__).resolve().parents[1]
RULES: Final = DEPLOY / "prometheus" / "rules"
TARGET: Final = DEPLOY / "kubernetes" / "components" / "monitoring" / "rules.yaml"
_HEAD: Final = "# deploy/prometheus/rules as a resource. Made by deploy/setup/rules.py.\n"


def resource() -> dict[str, Any]:
    """The groups of all files, in the order of their names."""
    files = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(RULES.glob("*.yml"))]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "tonestream", "labels": {"app.kubernetes.io/part-of": "tonestream"}},
        "spec": {"groups": [group for file in files for group in file["groups"]]},
    }


if __name__ == "__main__":
    text = yaml.safe_dump(resource(), sort_keys=False, width=120, allow_unicode=True)
    TARGET.write_text(_HEAD + text, encoding="utf-8")
