"""What deploy/ holds: each file is judged by the tool that knows its kind, and no two of them disagree."""

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from xmode_transfer.config import files as config_files
from xmode_transfer.config.service import DEFAULT_PORT, Daemon, host_and_port
from xmode_transfer.service.lifecycle import EVERY_SECONDS

CHECKOUT = Path(__file__).parents[2]
DEPLOY = CHECKOUT / "deploy"
SYSTEMD = DEPLOY / "systemd"
KUBERNETES = DEPLOY / "kubernetes"
BIN = Path(sys.executable).parent
INSTALLED = "/opt/xmode-transfer/bin/xmode-transfer"
# The oldest and the newest of what the schemas' package and the clouds have in common.
KUBERNETES_VERSIONS = ("1.30", "1.34", "1.37")
EXAMPLES = ("secret.example.yaml", "restore.example.yaml")
"""Not part of the kustomization: they are filled in first."""
MOST_EXPOSURE = {
    "xmode-transfer.service": 12,
    "xmode-transfer-worker@.service": 12,
    "xmode-transfer-backup.service": 5,
}
"""Of systemd's own measure, in tenths: 100 is a service that is held by nothing."""
SPARE_SECONDS = 15
"""What the daemon may need to end besides draining."""


def tool(name: str) -> str:
    """A program of the development set, or of this machine; without it the test is skipped."""
    found = shutil.which(str(BIN / name)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed on this machine")
    return found


def judged(*command: "str | Path") -> None:
    """Runs a tool that has nothing to say about what is right."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=CHECKOUT)
    assert done.returncode == 0, done.stdout + done.stderr


def documents(path: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if found]


# --- systemd -------------------------------------------------------------------------------------------


@cache
def unit(name: str) -> dict[str, list[str]]:
    """The settings of a unit, each with its values in order."""
    found: dict[str, list[str]] = {}
    for line in (SYSTEMD / name).read_text(encoding="utf-8").splitlines():
        key, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def seconds(text: str) -> int:
    number, word = re.fullmatch(r"(\d+)(s|min|h)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "min": 60, "h": 3600}[word]


def test_systemd_has_no_objection_to_the_units(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    program = tmp_path / "xmode-transfer"
    program.touch(mode=0o755)
    units = []
    for path in sorted(SYSTEMD.glob("xmode-transfer*.*")):
        if path.suffix in (".service", ".timer"):
            units.append(tmp_path / path.name)
            units[-1].write_text(path.read_text(encoding="utf-8").replace(INSTALLED, str(program)))
    assert len(units) == 4
    done = subprocess.run(
        [analyze, "verify", "--man=no", *map(str, units)], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", sorted(MOST_EXPOSURE))
def test_the_services_are_as_closed_as_promised(name: str) -> None:
    judged(
        tool("systemd-analyze"),
        "security",
        "--offline=yes",
        "--no-pager",
        f"--threshold={MOST_EXPOSURE[name]}",
        SYSTEMD / name,
    )


def test_the_daemon_has_longer_to_end_than_it_drains() -> None:
    service = unit("xmode-transfer.service")
    assert seconds(service["TimeoutStopSec"][0]) >= Daemon().drain_seconds + SPARE_SECONDS
    assert service["KillSignal"] == ["SIGTERM"]
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert (service["Type"], service["NotifyAccess"]) == (["notify"], ["main"])


def test_a_worker_is_held_as_the_daemon_is() -> None:
    """It does the same work with the same secrets; what differs is what it says of itself, and when."""
    daemon, worker = unit("xmode-transfer.service"), unit("xmode-transfer-worker@.service")
    differ = {"Description", "ExecStart", "WatchdogSec"}
    assert {key for key in {*daemon, *worker} if daemon.get(key) != worker.get(key)} == differ
    assert worker["ExecStart"] == [f"{INSTALLED} worker"]
    assert seconds(worker["WatchdogSec"][0]) >= 60 * EVERY_SECONDS


def test_the_watchdog_waits_longer_than_any_look() -> None:
    """The daemon is not silent for a tick of its default length, and one more."""
    assert seconds(unit("xmode-transfer.service")["WatchdogSec"][0]) >= 2 * Daemon().tick_seconds


def test_the_units_name_the_same_user_and_directories() -> None:
    daemon, backup = unit("xmode-transfer.service"), unit("xmode-transfer-backup.service")
    for key in ("User", "Group", "StateDirectory", "WorkingDirectory"):
        assert daemon[key] == backup[key], key
    user = daemon["User"][0]
    assert re.search(rf"^u +{user} ", (SYSTEMD / "xmode-transfer.sysusers").read_text(), re.MULTILINE)
    made = {
        line.split()[1]: line.split()[2:5]
        for line in (SYSTEMD / "xmode-transfer.tmpfiles").read_text().splitlines()
        if line.startswith("d ")
    }
    secrets = daemon["LoadCredential"][0].partition(":")[2]
    assert made[secrets] == ["0700", "root", "root"]
    assert made[backup["ReadWritePaths"][0]] == ["0700", user, user]
    wrapper = (SYSTEMD / "xmode").read_text()
    for word in (
        f"--uid={user}",
        f"LoadCredential=secret:{secrets}",
        INSTALLED,
        daemon["WorkingDirectory"][0],
    ):
        assert word in wrapper


def test_systemd_makes_the_user_and_the_directories(tmp_path: Path) -> None:
    """In a root of their own; nothing of this machine is changed."""
    sysusers, tmpfiles = tool("systemd-sysusers"), tool("systemd-tmpfiles")
    (tmp_path / "etc").mkdir()
    judged(sysusers, f"--root={tmp_path}", SYSTEMD / "xmode-transfer.sysusers")
    passwd = (tmp_path / "etc/passwd").read_text()
    entry = next(line for line in passwd.splitlines() if line.startswith("xmode-transfer:"))
    assert entry.endswith(":/var/lib/xmode-transfer:/usr/sbin/nologin")
    judged(tmpfiles, "--create", f"--root={tmp_path}", SYSTEMD / "xmode-transfer.tmpfiles")
    assert (tmp_path / "etc/credstore/xmode-transfer").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "var/backups/xmode-transfer").stat().st_uid == int(entry.split(":")[2])


def test_the_shell_scripts_are_sound() -> None:
    judged(tool("shellcheck"), SYSTEMD / "xmode", CHECKOUT / ".ci" / "run")


def test_the_wrapper_hands_on_what_it_is_given(tmp_path: Path) -> None:
    """With a stand-in for systemd-run, which runs what follows its options."""
    program = tmp_path / "xmode-transfer"
    program.write_text('#!/bin/sh\nprintf "%s|" "$AWS_SHARED_CREDENTIALS_FILE" "$@"\n')
    starter = tmp_path / "systemd-run"
    starter.write_text(
        "#!/bin/sh\n"
        'while case $1 in -*) true ;; *) false ;; esac; do echo "$1" >&2; shift; done\n'
        'CREDENTIALS_DIRECTORY=/run/credentials/run-1.service exec "$@"\n'
    )
    wrapper = tmp_path / "xmode"
    wrapper.write_text((SYSTEMD / "xmode").read_text().replace(INSTALLED, str(program)))
    for path in (program, starter, wrapper):
        path.chmod(0o755)
    done = subprocess.run(
        [wrapper, "run", "--customer", "a b", "$HOME;'\""],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ("/run/credentials/run-1.service/secret_aws|run|--customer|a b|$HOME;'\"|")
    assert {"--pipe", "--wait", "--uid=xmode-transfer"} <= set(done.stderr.splitlines())


# --- The image -----------------------------------------------------------------------------------------


def test_the_image_is_written_as_it_should_be() -> None:
    judged(tool("hadolint"), "--failure-threshold=info", CHECKOUT / "Dockerfile")


def image() -> str:
    """The Dockerfile, each instruction on one line."""
    return re.sub(r"\\\n\s*", "", (CHECKOUT / "Dockerfile").read_text(encoding="utf-8"))


def health_check() -> list[str]:
    found = re.search(r"^HEALTHCHECK .*?CMD (\[.*\])$", image(), re.MULTILINE)
    assert found is not None
    return list(json.loads(found[1]))


# --- Compose -------------------------------------------------------------------------------------------


@cache
def compose() -> dict[str, Any]:
    (found,) = documents(DEPLOY / "compose.yaml")
    return found


def test_compose_takes_the_file() -> None:
    judged(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


def test_compose_closes_the_container() -> None:
    daemon = compose()["services"]["daemon"]
    assert daemon["read_only"] is True
    assert daemon["cap_drop"] == ["ALL"]
    assert daemon["security_opt"] == ["no-new-privileges:true"]
    assert all(volume.get("read_only") or volume["source"] == "ledger" for volume in daemon["volumes"])
    assert all(port.startswith("127.0.0.1:") for port in daemon["ports"])
    assert seconds(daemon["stop_grace_period"]) >= drain_seconds() + SPARE_SECONDS
    assert daemon["healthcheck"]["test"][1:] == health_check()


# --- Kubernetes ----------------------------------------------------------------------------------------


@cache
def kustomization() -> dict[str, Any]:
    (found,) = documents(KUBERNETES / "kustomization.yaml")
    return found


@cache
def manifests() -> list[dict[str, Any]]:
    return [found for name in kustomization()["resources"] for found in documents(KUBERNETES / name)]


def manifest(kind: str, name: str = "xmode-transfer") -> dict[str, Any]:
    return next(one for one in manifests() if (one["kind"], one["metadata"]["name"]) == (kind, name))


def pods() -> dict[str, dict[str, Any]]:
    job = manifest("CronJob", "xmode-transfer-backup")["spec"]["jobTemplate"]["spec"]
    (restore,) = documents(KUBERNETES / "restore.example.yaml")
    return {
        "daemon": manifest("StatefulSet")["spec"]["template"],
        "backup": job["template"],
        "restore": restore["spec"]["template"],
    }


def drain_seconds() -> int:
    return config_files.load(KUBERNETES / "config").service.daemon.drain_seconds


def test_each_manifest_belongs_to_the_kustomization() -> None:
    here = {path.name for path in KUBERNETES.glob("*.yaml")}
    assert here == {*kustomization()["resources"], "kustomization.yaml", *EXAMPLES}
    generated = {name for one in kustomization()["configMapGenerator"] for name in one["files"]}
    files = {str(path.relative_to(KUBERNETES)) for path in (KUBERNETES / "config").rglob("*.yaml")}
    assert generated == files


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_kubernetes_takes_the_manifests(version: str) -> None:
    """By the schemas of that version's API, which are in the package; unknown fields are refused."""
    validate = pytest.importorskip("kubernetes_validate").validate
    examples = [found for name in EXAMPLES for found in documents(KUBERNETES / name)]
    for one in [*manifests(), *examples]:
        validate(one, version, strict=True)


def test_the_schemas_refuse_what_kubernetes_would() -> None:
    package = pytest.importorskip("kubernetes_validate")
    with pytest.raises(package.ValidationError):
        package.validate({**manifest("StatefulSet"), "spec": {"replica": 1}}, "1.34", strict=True)


def test_kustomize_builds_what_the_files_say() -> None:
    done = subprocess.run([tool("kubectl"), "kustomize", str(KUBERNETES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert len(built) == len(manifests()) + len(kustomization()["configMapGenerator"])
    validate = pytest.importorskip("kubernetes_validate").validate
    for one in built:
        assert one["metadata"].get("namespace", "xmode-transfer") == "xmode-transfer"
        validate(one, KUBERNETES_VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", ["daemon", "backup", "restore"])
def test_the_pods_meet_the_restricted_standard(name: str) -> None:
    """Pod Security Standards, restricted: https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    spec = pods()[name]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert {kind for volume in spec["volumes"] for kind in set(volume) - {"name"}} <= {
        "configMap",
        "secret",
        "emptyDir",
        "persistentVolumeClaim",
    }
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claimed = {one["metadata"]["name"] for one in manifest("StatefulSet")["spec"]["volumeClaimTemplates"]}
        assert mounted <= {volume["name"] for volume in spec["volumes"]} | claimed


def test_only_one_daemon_runs_and_has_time_to_end() -> None:
    spec = manifest("StatefulSet")["spec"]
    assert spec["replicas"] == 1
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] >= drain_seconds() + SPARE_SECONDS
    assert manifest("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert "minAvailable" not in manifest("PodDisruptionBudget")["spec"]


def test_each_selector_finds_its_pod_and_no_other() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods().items()}

    def found(selector: dict[str, str]) -> set[str]:
        return {name for name, has in labels.items() if selector.items() <= has.items()}

    assert found(manifest("StatefulSet")["spec"]["selector"]["matchLabels"]) == {"daemon"}
    assert found(manifest("Service")["spec"]["selector"]) == {"daemon"}
    assert found(manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]) == {"daemon"}
    for policy, pod in (("xmode-transfer", "daemon"), ("xmode-transfer-backup", "backup")):
        spec = manifest("NetworkPolicy", policy)["spec"]
        assert found(spec["podSelector"]["matchLabels"]) == ({pod} if pod == "daemon" else {pod, "restore"})
        assert set(spec["policyTypes"]) == {"Ingress", "Egress"}


def test_the_network_lets_through_what_the_daemon_needs_and_nothing_else() -> None:
    spec = manifest("NetworkPolicy")["spec"]
    ports = {(port["protocol"], port["port"]) for rule in spec["egress"] for port in rule["ports"]}
    assert ports == {("UDP", 53), ("TCP", 53), ("TCP", 443)}
    assert all(rule["to"] for rule in spec["egress"])
    assert all(rule["from"] for rule in spec["ingress"])
    assert "169.254.169.254/32" in str(spec["egress"])
    silent = manifest("NetworkPolicy", "xmode-transfer-backup")["spec"]
    assert not {"ingress", "egress"} & set(silent)


# --- What is said in more than one place ---------------------------------------------------------------


def test_the_configuration_of_the_containers_is_in_order() -> None:
    """The installed command judges it, as an operator would let it."""
    judged(BIN / "xmode-transfer", "--config", KUBERNETES / "config", "config", "check")


def test_the_port_is_the_same_everywhere() -> None:
    page = config_files.load(KUBERNETES / "config").service.status_page
    assert page is not None
    (container,) = manifest("StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert page.port == DEFAULT_PORT
    assert page.probes is not None
    probes = host_and_port(page.probes)[1]
    assert container["ports"] == [
        {"name": "http", "containerPort": DEFAULT_PORT, "protocol": "TCP"},
        {"name": "probes", "containerPort": probes, "protocol": "TCP"},
    ]
    assert [port["port"] for port in manifest("Service")["spec"]["ports"]] == [DEFAULT_PORT]
    (rule,) = manifest("NetworkPolicy")["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [DEFAULT_PORT]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "probes"
    assert [container[one]["httpGet"]["path"] for one in ("livenessProbe", "readinessProbe")] == [
        "/healthz",
        "/readyz",
    ]
    assert f"127.0.0.1:{DEFAULT_PORT}:{DEFAULT_PORT}" in compose()["services"]["daemon"]["ports"]
    assert f"EXPOSE {DEFAULT_PORT}\n" in image()
    assert f"'127.0.0.1', {DEFAULT_PORT}" in health_check()[-1]


def test_the_user_is_the_same_everywhere() -> None:
    user = re.search(r"^USER (\d+):(\d+)$", image(), re.MULTILINE)
    assert user is not None
    assert compose()["services"]["daemon"]["user"] == f"{user[1]}:{user[2]}"
    for pod in pods().values():
        context = pod["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (
            int(user[1]),
            int(user[2]),
            int(user[2]),
        )


def test_the_image_is_the_same_everywhere() -> None:
    version = re.search(r'image.version="([^"]+)"', image())
    assert version is not None
    assert compose()["services"]["daemon"]["image"] == f"xmode-transfer:{version[1]}"
    assert kustomization()["images"] == [{"name": "xmode-transfer", "newTag": version[1]}]
    images = {name: [one["image"] for one in pod["spec"]["containers"]] for name, pod in pods().items()}
    assert images == {
        "daemon": ["xmode-transfer"],
        "backup": ["xmode-transfer"],
        "restore": [f"xmode-transfer:{version[1]}"],  # kustomize does not see it
    }


def test_every_secret_that_is_named_is_mounted() -> None:
    """The AWS key and the page's token, at the same places under Compose and Kubernetes."""
    page = config_files.load(KUBERNETES / "config").service.status_page
    assert page is not None
    assert page.token is not None
    daemon = compose()["services"]["daemon"]
    (container,) = manifest("StatefulSet")["spec"]["template"]["spec"]["containers"]
    variables = {one["name"]: one["value"] for one in container["env"]}
    assert variables == daemon["environment"]
    wanted = {variables["AWS_SHARED_CREDENTIALS_FILE"], page.token.name}
    (secret,) = documents(KUBERNETES / "secret.example.yaml")
    assert {f"/run/secrets/{name}" for name in secret["stringData"]} == wanted
    assert {f"/run/secrets/{name}" for name in daemon["secrets"]} == wanted
    assert set(compose()["secrets"]) == set(daemon["secrets"])
    mount = next(one for one in container["volumeMounts"] if one["name"] == "secrets")
    assert mount["mountPath"] == "/run/secrets"
    volume = next(one for one in pods()["daemon"]["spec"]["volumes"] if one["name"] == "secrets")
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]


def test_the_ledger_lies_on_what_lasts() -> None:
    ledger = config_files.load(KUBERNETES / "config").service.ledger.removeprefix("sqlite:///")
    for pod in pods().values():
        (container,) = pod["spec"]["containers"]
        mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
        assert ledger.startswith(f"{mounts['ledger']}/")
    lasting = next(one for one in compose()["services"]["daemon"]["volumes"] if one["source"] == "ledger")
    assert ledger.startswith(f"{lasting['target']}/")
    stateful = manifest("StatefulSet")
    template = stateful["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]
    for name in ("backup", "restore"):
        claim = next(one for one in pods()[name]["spec"]["volumes"] if one["name"] == "ledger")
        assert claim["persistentVolumeClaim"]["claimName"] == f"{template}-{stateful['metadata']['name']}-0"
