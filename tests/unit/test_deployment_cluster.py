"""What deploy/ holds for a fleet, as test_deployment.py, and that it agrees with what is for one daemon."""

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from xmode_transfer.config import Configuration, files
from xmode_transfer.config.secrets import SecretKind, SecretRef
from xmode_transfer.config.service import DEFAULT_PORT
from xmode_transfer.service.lifecycle import EVERY_SECONDS

CHECKOUT = Path(__file__).parents[2]
DEPLOY = CHECKOUT / "deploy"
SINGLE, CLUSTER = DEPLOY / "kubernetes", DEPLOY / "kubernetes-cluster"
BIN = Path(sys.executable).parent
KUBERNETES_VERSIONS = ("1.30", "1.34", "1.37")
EXAMPLES = ("secret.example.yaml", "autoscaling.example.yaml", "autoscaling-keda.example.yaml")
SPARE_SECONDS = 15
"""What a worker may need to end besides draining."""


def documents(path: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if found]


@cache
def kustomization() -> dict[str, Any]:
    (found,) = documents(CLUSTER / "kustomization.yaml")
    return found


@cache
def manifests() -> list[dict[str, Any]]:
    """Those that the overlay adds."""
    names = [name for name in kustomization()["resources"] if name.endswith(".yaml")]
    return [found for name in names for found in documents(CLUSTER / name)]


def manifest(kind: str, name: str) -> dict[str, Any]:
    return next(one for one in manifests() if (one["kind"], one["metadata"]["name"]) == (kind, name))


def template(component: str) -> dict[str, Any]:
    if component == "ledger":
        found: dict[str, Any] = manifest("StatefulSet", "xmode-transfer-ledger")["spec"]["template"]
    elif component == "backup":
        job = manifest("CronJob", "xmode-transfer-ledger-backup")["spec"]["jobTemplate"]["spec"]
        found = job["template"]
    else:
        found = manifest("Deployment", f"xmode-transfer-{component}")["spec"]["template"]
    return found


def container(component: str) -> dict[str, Any]:
    (found,) = template(component)["spec"]["containers"]
    assert isinstance(found, dict)
    return found


@cache
def compose() -> dict[str, Any]:
    (found,) = documents(DEPLOY / "compose.cluster.yaml")
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Configuration:
    """The overlay's service.yaml with the customers and feeds of the base."""
    shutil.copytree(SINGLE / "config", tmp_path, dirs_exist_ok=True)
    shutil.copy(CLUSTER / "config" / "service.yaml", tmp_path)
    done = subprocess.run(
        [BIN / "xmode-transfer", "--config", tmp_path, "config", "check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return files.load(tmp_path)


# --- The files, by the tools that know them ------------------------------------------------------------


def test_each_manifest_belongs_to_the_kustomization() -> None:
    here = {path.name for path in CLUSTER.glob("*.yaml")}
    assert here | {"../kubernetes"} == {*kustomization()["resources"], "kustomization.yaml", *EXAMPLES}


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_kubernetes_takes_the_manifests(version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    for one in [*manifests(), *(found for name in EXAMPLES[:2] for found in documents(CLUSTER / name))]:
        validate(one, version, strict=True)


def test_compose_takes_the_file() -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, DEPLOY / "compose.cluster.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@cache
def built() -> list[dict[str, Any]]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed on this machine")
    done = subprocess.run([kubectl, "kustomize", str(CLUSTER)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_kustomize_builds_a_fleet_without_the_single_daemon() -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    for one in built():
        assert one["metadata"].get("namespace", "xmode-transfer") == "xmode-transfer"
        validate(one, KUBERNETES_VERSIONS[-1], strict=True)
    names = {(one["kind"], one["metadata"]["name"]) for one in built()}
    assert ("StatefulSet", "xmode-transfer") not in names
    assert ("CronJob", "xmode-transfer-backup") not in names
    assert {("Deployment", "xmode-transfer-daemon"), ("Deployment", "xmode-transfer-worker")} <= names
    (service,) = [one for one in built() if one["metadata"]["name"] == "xmode-transfer-service"]
    assert "file:/run/secrets/ledger" in service["data"]["service.yaml"]


def test_kustomize_lets_the_daemons_reach_the_ledger() -> None:
    (policy,) = [
        one
        for one in built()
        if (one["kind"], one["metadata"]["name"]) == ("NetworkPolicy", "xmode-transfer")
    ]
    ports = {(port["protocol"], port["port"]) for rule in policy["spec"]["egress"] for port in rule["ports"]}
    assert ports == {("UDP", 53), ("TCP", 53), ("TCP", 443), ("TCP", 5432)}


# --- Pods ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", ["daemon", "worker", "ledger", "backup"])
def test_the_pods_meet_the_restricted_standard(component: str) -> None:
    spec = template(component)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container(component)["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert {"cpu", "memory"} <= set(container(component)["resources"]["requests"])
    assert "memory" in container(component)["resources"]["limits"]
    claims = manifest("StatefulSet", "xmode-transfer-ledger")["spec"]["volumeClaimTemplates"]
    there = {volume["name"] for volume in spec["volumes"]} | {one["metadata"]["name"] for one in claims}
    assert {mount["name"] for mount in container(component)["volumeMounts"]} <= there


@pytest.mark.parametrize("component", ["daemon", "worker"])
def test_a_rolling_restart_lets_turns_end(component: str, settings: Configuration) -> None:
    deployment = manifest("Deployment", f"xmode-transfer-{component}")["spec"]
    grace = template(component)["spec"]["terminationGracePeriodSeconds"]
    assert grace >= settings.service.daemon.drain_seconds + SPARE_SECONDS
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 1
    assert deployment["replicas"] >= 2
    period = compose()["services"][component]["stop_grace_period"]
    assert int(period.removesuffix("s")) >= settings.service.daemon.drain_seconds + SPARE_SECONDS


def test_each_selector_finds_its_pods_and_no_others() -> None:
    labels = {name: template(name)["metadata"]["labels"] for name in ("daemon", "worker", "ledger", "backup")}

    def found(selector: dict[str, str]) -> set[str]:
        return {name for name, has in labels.items() if selector.items() <= has.items()}

    for name in ("daemon", "worker"):
        assert found(manifest("Deployment", f"xmode-transfer-{name}")["spec"]["selector"]["matchLabels"]) == {
            name
        }
    assert found(manifest("Service", "xmode-transfer-ledger")["spec"]["selector"]) == {"ledger"}
    budget = manifest("PodDisruptionBudget", "xmode-transfer-worker")["spec"]
    assert found(budget["selector"]["matchLabels"]) == {"worker"}
    for policy, name in (("worker", "worker"), ("ledger", "ledger"), ("ledger-backup", "backup")):
        spec = manifest("NetworkPolicy", f"xmode-transfer-{policy}")["spec"]
        assert found(spec["podSelector"]["matchLabels"]) == {name}
        assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    # The base's service, budget and policy are for this component.
    (service,) = documents(SINGLE / "service.yaml")
    assert found(service["spec"]["selector"]) == {"daemon"}


def test_the_network_lets_through_what_is_needed_and_nothing_else() -> None:
    def ports(name: str, way: str) -> set[tuple[str, int]]:
        rules = manifest("NetworkPolicy", f"xmode-transfer-{name}")["spec"].get(way, ())
        assert all(rule["from" if way == "ingress" else "to"] for rule in rules)
        return {(port["protocol"], port["port"]) for rule in rules for port in rule["ports"]}

    dns, ledger = {("UDP", 53), ("TCP", 53)}, {("TCP", 5432)}
    assert ports("worker", "egress") == dns | ledger | {("TCP", 443)}
    assert ports("ledger-backup", "egress") == dns | ledger
    assert ports("ledger", "ingress") == ledger
    assert (
        ports("worker", "ingress") == ports("ledger-backup", "ingress") == ports("ledger", "egress") == set()
    )
    assert "169.254.169.254/32" in str(manifest("NetworkPolicy", "xmode-transfer-worker"))


def test_the_probes_of_a_worker_wait_longer_than_its_loop() -> None:
    """And no probe asks for the ledger."""
    command = " ".join(container("worker")["livenessProbe"]["exec"]["command"])
    check = compose()["services"]["worker"]["healthcheck"]["test"][1]
    for told in (command, check):
        minutes = re.search(r"find /tmp/alive -mmin -(\d+)", told)
        assert minutes is not None
        assert int(minutes[1]) * 60 >= 60 * EVERY_SECONDS
    assert container("worker")["args"] == compose()["services"]["worker"]["command"]
    assert "/tmp/alive" in container("worker")["args"]
    for name in ("livenessProbe", "readinessProbe"):
        assert container("daemon")[name]["httpGet"]["port"] == "probes"
    ports = {port["name"]: port["containerPort"] for port in container("daemon")["ports"]}
    page = files.load(CLUSTER / "config").service.status_page
    assert page is not None
    assert page.probes == f"0.0.0.0:{ports['probes']}"
    assert ports["http"] == page.port == DEFAULT_PORT


@pytest.mark.parametrize("component", ["daemon", "worker"])
def test_the_command_knows_what_it_is_started_with(component: str) -> None:
    arguments = container(component)["args"]
    assert compose()["services"][component]["command"] == arguments
    command = [BIN / "xmode-transfer", component, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    words = set(re.findall(r"--[a-z-]+", done.stdout))
    assert {argument for argument in arguments if argument.startswith("--")} <= words


# --- What is said in more than one place ---------------------------------------------------------------


def test_every_secret_that_is_named_is_mounted(settings: Configuration) -> None:
    page = settings.service.status_page
    assert page is not None
    assert page.token == SecretRef(SecretKind.FILE, "/run/secrets/status-page")
    secrets = {one["metadata"]["name"]: set(one["stringData"]) for one in documents(CLUSTER / EXAMPLES[0])}
    assert secrets["xmode-transfer"] == {"aws", "status-page", "ledger", "ledger-ca"}
    for component in ("daemon", "worker"):
        volume = next(one for one in template(component)["spec"]["volumes"] if one["name"] == "secrets")
        assert volume["secret"]["secretName"] == "xmode-transfer"
        variables = {one["name"]: one["value"] for one in container(component)["env"]}
        assert variables == compose()["services"][component]["environment"]
        assert set(compose()["services"][component]["secrets"]) == {"aws", "status-page", "ledger"}
    volumes = {one["name"]: one for one in template("ledger")["spec"]["volumes"]}
    assert volumes["secrets"]["secret"]["secretName"] in secrets
    assert secrets[volumes["tls"]["secret"]["secretName"]] == {"tls.crt", "tls.key"}
    assert set(compose()["secrets"]) == {"aws", "status-page", "ledger", "postgres-password"}
    (ledger,) = [one for one in documents(CLUSTER / EXAMPLES[0]) if "ledger" in one["stringData"]]
    assert "@xmode-transfer-ledger/xmode?sslmode=verify-full" in ledger["stringData"]["ledger"]


def test_the_autoscalers_ask_for_the_places_of_one_worker(settings: Configuration) -> None:
    (scaler,) = documents(CLUSTER / EXAMPLES[1])
    (metric,) = scaler["spec"]["metrics"]
    (keda,) = documents(CLUSTER / EXAMPLES[2])
    places = str(settings.service.cluster.places)
    assert metric["external"]["target"]["averageValue"] == places
    assert keda["spec"]["triggers"][0]["metadata"]["threshold"] == places
    name = manifest("Deployment", "xmode-transfer-worker")["metadata"]["name"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == keda["spec"]["scaleTargetRef"]["name"] == name
    query = keda["spec"]["triggers"][0]["metadata"]["query"]
    assert query in (CLUSTER / EXAMPLES[1]).read_text(encoding="utf-8"), "both say the same"


def test_prometheus_understands_what_the_autoscaler_asks(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    (keda,) = documents(CLUSTER / EXAMPLES[2])
    rules = [
        {"record": f"asked:{number}", "expr": one["metadata"]["query"]}
        for number, one in enumerate(keda["spec"]["triggers"])
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "scaling", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_and_the_users_are_the_same_everywhere() -> None:
    (single,) = documents(SINGLE / "kustomization.yaml")
    assert kustomization()["images"] == single["images"]
    (alone,) = documents(DEPLOY / "compose.yaml")
    for component in ("daemon", "worker"):
        assert compose()["services"][component]["image"] == alone["services"]["daemon"]["image"]
        assert compose()["services"][component]["user"] == alone["services"]["daemon"]["user"]
        user = template(component)["spec"]["securityContext"]["runAsUser"]
        assert alone["services"]["daemon"]["user"] == f"{user}:{user}"
    images = {container("ledger")["image"], container("backup")["image"]}
    assert images == {compose()["services"]["postgres"]["image"]}


def test_compose_closes_the_containers() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert "healthcheck" in service, name
    assert compose()["services"]["postgres"]["networks"] == ["ledger"]
    assert compose()["networks"]["ledger"] == {"internal": True}
