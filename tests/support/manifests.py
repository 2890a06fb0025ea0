"""The manifests of ``deploy/kubernetes`` as an API server would get them, and what their network rules let through."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.processes import NotAvailableError
from tests.support.samples import ROOT

FOLDER: Final = ROOT / "deploy" / "kubernetes"
OVERLAYS: Final = ("laptop", "production")
Manifest = dict[str, Any]


def rendered(folder: Path) -> list[Manifest]:
    """What kustomize makes of the folder. Raises NotAvailableError without kustomize, CalledProcessError for errors."""
    done = subprocess.run([*_kustomize(), str(folder)], check=True, capture_output=True, text=True, timeout=120)
    assert done.stderr == "", "kustomize warns of what will not work for ever"
    return [one for one in yaml.safe_load_all(done.stdout) if one]


@cache
def _kustomize() -> tuple[str, ...]:
    own = ROOT / ".cache" / "bin" / "kustomize"
    if found := shutil.which("kustomize") or (str(own) if own.exists() else None):
        return found, "build"
    if found := shutil.which("kubectl"):
        return found, "kustomize"
    raise NotAvailableError("neither kustomize nor kubectl is installed; deploy/setup/test-services.sh installs one")


def with_components(target: Path, *components: str) -> list[Manifest]:
    """The overlay for a laptop with further components, rendered in the folder ``target``."""
    names = [f"../../components/{name}" for name in components]
    overlay = FOLDER / "overlays" / "laptop"
    for file in overlay.iterdir():
        shutil.copy(file, target)
    made = yaml.safe_load((target / "kustomization.yaml").read_text(encoding="utf-8"))
    here = os.path.relpath(overlay, target)
    made["resources"] = [f"{here}/{one}" for one in made["resources"]]
    made["components"] = [f"{here}/{one}" for one in [*made["components"], *names]]
    (target / "kustomization.yaml").write_text(yaml.safe_dump(made), encoding="utf-8")
    return rendered(target)


@dataclass(frozen=True)
class Workload:
    """A Deployment or StatefulSet, with the settings that its containers get."""

    manifest: Manifest
    environment: dict[str, str]

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["labels"]["app.kubernetes.io/name"])

    @property
    def labels(self) -> dict[str, str]:
        found: dict[str, str] = self.manifest["spec"]["template"]["metadata"]["labels"]
        return found

    @property
    def pod(self) -> Manifest:
        found: Manifest = self.manifest["spec"]["template"]["spec"]
        return found

    @property
    def container(self) -> Manifest:
        (found,) = self.pod["containers"]
        return dict(found)

    @property
    def containers(self) -> list[Manifest]:
        """All of them: what runs before ``container``, and that."""
        return [*self.pod.get("initContainers", ()), self.container]

    def secret_files(self) -> dict[str, str]:
        """Secrets by the name of their file in ``/run/secrets``; a whole Secret under its own name with a slash."""
        (volume,) = [one for one in self.pod["volumes"] if one["name"] == "secrets"]
        found = {}
        for source in volume["projected"]["sources"]:
            secret = source["secret"]
            for item in secret.get("items", [{"path": f"{secret['name']}/"}]):
                found[item["path"]] = secret["name"]
        return found


def workloads(manifests: list[Manifest]) -> dict[str, Workload]:
    """All of them, by name."""
    maps = {one["metadata"]["name"]: one["data"] for one in manifests if one["kind"] == "ConfigMap"}
    found = {}
    for one in manifests:
        if one["kind"] in {"Deployment", "StatefulSet"}:
            (container,) = one["spec"]["template"]["spec"]["containers"]
            environment: dict[str, str] = {}
            for source in container.get("envFrom", ()):
                environment |= maps[source["configMapRef"]["name"]]
            environment |= {variable["name"]: variable["value"] for variable in container.get("env", ())}
            found[one["metadata"]["labels"]["app.kubernetes.io/name"]] = Workload(one, environment)
    return found


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether the label selector chooses a pod with these labels."""
    for rule in selector.get("matchExpressions", ()):
        assert rule["operator"] == "Exists"
        if rule["key"] not in labels:
            return False
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())


def policies_of(manifests: list[Manifest], labels: dict[str, str], direction: str) -> list[Manifest]:
    """The specifications of the NetworkPolicies that hold for pods with these labels."""
    return [
        one["spec"]
        for one in manifests
        if one["kind"] == "NetworkPolicy"
        and direction in one["spec"]["policyTypes"]
        and selects(one["spec"]["podSelector"], labels)
    ]


def may_leave_to(manifests: list[Manifest], labels: dict[str, str], address: str, port: int) -> bool:
    """Whether a pod with these labels may connect to that address outside of the cluster."""
    parsed = ipaddress.ip_address(address)
    blocks = [
        peer["ipBlock"]
        for spec in policies_of(manifests, labels, "Egress")
        for rule in spec.get("egress", ())
        for peer in rule["to"]
        if "ipBlock" in peer and port in {one["port"] for one in rule["ports"]}
    ]
    return any(
        parsed in ipaddress.ip_network(block["cidr"])
        and not any(parsed in ipaddress.ip_network(one) for one in block.get("except", ()))
        for block in blocks
    )


def may_reach(manifests: list[Manifest], source: dict[str, str], target: dict[str, str], port: int) -> bool:
    """Whether a pod of the namespace may connect to another one of it: both sides have to allow it."""
    ways = ((source, target, "Egress", "to"), (target, source, "Ingress", "from"))
    return all(
        any(
            port in {found["port"] for found in rule["ports"]}
            and any("podSelector" in peer and "namespaceSelector" not in peer and selects(peer["podSelector"], other)
                    for peer in rule[side])
            for spec in policies_of(manifests, own, direction)
            for rule in spec.get(direction.lower(), ())
        )
        for own, other, direction, side in ways
    )  # fmt: skip
