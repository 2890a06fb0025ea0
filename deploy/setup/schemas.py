"""Fetch the schemas of the custom resources in ``deploy/kubernetes`` anew, into ``deploy/kubernetes/schemas``.

Those of Go projects are files of their modules; Strimzi's are made by its own generator from its API, both on Maven
Central, with a Java of at least 21 (``JAVA=/path/to/java``). Needs ``go``, ``mvn`` and PyYAML. Prose is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).resolve().parents[1] / "kubernetes" / "schemas"
#: Module, version, files. All are under the Apache License 2.0.
MODULES: Final = (
    (
        "github.com/kedacore/keda/v2",
        "v2.21.0",
        ("config/crd/bases/keda.sh_scaledobjects.yaml", "config/crd/bases/keda.sh_triggerauthentications.yaml"),
    ),
    (
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        (
            "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        ),
    ),
    ("sigs.k8s.io/gateway-api", "v1.4.0", ("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",)),
)
STRIMZI: Final = "1.2.0"
STRIMZI_KINDS: Final = {
    "Kafka": "kafka.Kafka",
    "KafkaNodePool": "nodepool.KafkaNodePool",
    "KafkaUser": "user.KafkaUser",
}
_POM: Final = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>schemas</artifactId><version>1</version><dependencies>
<dependency><groupId>io.strimzi</groupId><artifactId>crd-generator</artifactId><version>{version}</version></dependency>
<dependency><groupId>io.strimzi</groupId><artifactId>api</artifactId><version>{version}</version></dependency>
</dependencies></project>"""


def main() -> None:
    """Write the schemas, and where they are from."""
    sources: dict[str, dict[str, str]] = {}
    for module, version, files in MODULES:
        folder = _module(module, version)
        for file in files:
            _keep((folder / file).read_text(encoding="utf-8"), f"{module}@{version}/{file}", sources)
    for kind, text in _strimzi().items():
        _keep(text, f"io.strimzi:api:{STRIMZI} {kind}, by io.strimzi:crd-generator:{STRIMZI}", sources)
    _write(FOLDER / "sources.json", sources)


def _module(module: str, version: str) -> Path:
    """Where Go has put the module, after a check of its hash against the public checksum database."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["go", "mod", "download", "-json", f"{module}@{version}"]
        subprocess.run(["go", "mod", "init", "schemas"], cwd=folder, check=True, capture_output=True)
        done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE)
    return Path(json.loads(done.stdout)["Dir"])


def _strimzi() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pom.xml").write_text(_POM.format(version=STRIMZI), encoding="utf-8")
        copy = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"]
        subprocess.run(copy, cwd=folder, check=True)
        made = {kind: folder / "out" / f"{kind}.yaml" for kind in STRIMZI_KINDS}
        wanted = [f"io.strimzi.api.kafka.model.{STRIMZI_KINDS[kind]}={path}" for kind, path in made.items()]
        java = [os.environ.get("JAVA", "java"), "-cp", "lib/*", "io.strimzi.crdgenerator.CrdGenerator", "--yaml"]
        subprocess.run([*java, *wanted], cwd=folder, check=True)
        return {kind: path.read_text(encoding="utf-8") for kind, path in made.items()}


def _keep(text: str, origin: str, sources: dict[str, dict[str, str]]) -> None:
    """One file for each version that the API server would take."""
    found = yaml.safe_load(text)["spec"]
    for version in found["versions"]:
        if version["served"]:
            name = f"{found['names']['kind'].lower()}-{found['group']}-{version['name']}.json"
            _write(FOLDER / name, without_descriptions(version["schema"]["openAPIV3Schema"]))
            digest = hashlib.sha256(text.encode()).hexdigest()
            sources[name] = {"from": origin, "sha256": digest, "licence": "Apache-2.0"}


def without_descriptions(schema: Any, names: bool = False) -> Any:
    """The schema without prose. ``names``: its keys are names of properties, and one may be called description."""
    if isinstance(schema, list):
        return [without_descriptions(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: without_descriptions(value, names=key == "properties" and not names)
        for key, value in schema.items()
        if names or key != "description" or not isinstance(value, str)
    }


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
