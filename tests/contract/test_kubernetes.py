"""The manifests and the image agree with `densepath serve`, and with one another.

Their types are checked elsewhere: deploy/kubernetes/check.py, which needs KServe's package.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
CONTAINERFILE = (ROOT / "deploy" / "Containerfile").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
# KServe's fields of a predictor; the others are a pod's.
SCALING = ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget")


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def predictor(name: str) -> Any:
    (service,) = documents(name)
    return service["spec"]["predictor"]


def find(value: Any, key: str) -> Iterator[Any]:
    """What stands under the key, however deep."""
    children = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict) and key in value:
        yield value[key]
    if isinstance(value, dict | list):
        for child in children:
            yield from find(child, key)


def pods() -> Iterator[Any]:
    """(id, pod, container) of every server; a canary takes from `predictor` what it leaves out."""
    for path in sorted(FOLDER.glob("*.yaml")):
        for document in documents(path.name):
            if document["kind"] == "Deployment":
                found = {"": document["spec"]["template"]["spec"]}
            elif document["kind"] == "InferenceService":
                stable = document["spec"]["predictor"]
                others = document["spec"].get("canary", [])
                found = {"": stable}
                for each in others:
                    found[f"-{each['predictor']['name']}"] = {**stable, **each["predictor"]}
            else:
                continue
            for suffix, pod in found.items():
                (container,) = pod["containers"]
                yield pytest.param(pod, container, id=path.stem + suffix)


def options(arguments: list[str]) -> dict[str, Any]:
    """What `densepath` would read from the arguments: the values of the verb `serve`."""
    import typer.main

    from densepath.cli.app import build_app

    verb, *rest = arguments
    command = typer.main.get_command(build_app([verb, "models"]))
    assert verb == "serve"
    return command.commands[verb].make_context(verb, list(rest)).params


servers = pytest.mark.parametrize(("pod", "container"), list(pods()))


def test_each_manifest_has_servers_or_needs_none():
    kinds = {d["kind"] for p in FOLDER.glob("*.yaml") for d in documents(p.name)}
    assert kinds >= {"InferenceService", "Deployment", "HorizontalPodAutoscaler", "Service"}
    assert len(list(pods())) == 7


@servers
def test_the_arguments_are_those_of_the_verb_serve(pod, container):
    values = options(container["args"])
    assert values["host"] == "0.0.0.0"
    assert "command" not in container  # the image's own is `densepath`


@servers
def test_the_ports_are_those_that_the_server_listens_on(pod, container):
    values = options(container["args"])
    listening = {"http": values["port"], "http1": values["port"]}
    listening |= dict.fromkeys(("grpc", "h2c"), values["grpc_port"])
    assert all(listening[port["name"]] == port["containerPort"] for port in container["ports"])
    named = {port["containerPort"] for port in container["ports"]}
    probed = {
        handler["port"] for kind in ("httpGet", "tcpSocket") for handler in find(container, kind)
    }
    assert probed <= named
    assert {p for probe in find(container, "httpGet") for p in [probe["port"]]} <= {values["port"]}


@servers
def test_a_pod_may_outlast_the_grace_and_a_client_the_deadline(pod, container):
    values = options(container["args"])
    # Knative gives a pod the time of its longest request.
    ends_s = pod.get("terminationGracePeriodSeconds", pod.get("timeout"))
    assert ends_s > values["linger"] + values["grace"]
    if "timeout" in pod:
        assert pod["timeout"] > values["timeout"]


@servers
def test_a_container_may_write_nothing_but_the_cache_and_tmp(pod, container):
    context = container["securityContext"]
    user, group = re.search(r"^USER (\d+):(\d+)$", CONTAINERFILE, re.MULTILINE).groups()
    assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))
    assert context["readOnlyRootFilesystem"]
    assert context["runAsNonRoot"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    written = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    assert written == set(json.loads(re.search(r"^VOLUME (.*)$", CONTAINERFILE, re.M)[1]))
    assert all(
        "emptyDir" in volumes[m["name"]] for m in container["volumeMounts"] if not m.get("readOnly")
    )


@servers
def test_the_cores_are_whole_and_all_reserved(pod, container):
    resources = container["resources"]
    assert resources["requests"]["cpu"] == resources["limits"]["cpu"]
    assert int(resources["limits"]["cpu"]) > 0


@servers
def test_the_image_has_a_compiler_where_the_kernels_are_asked_for(pod, container):
    engine = options(container["args"])["engine"]
    slim = container["image"].endswith("-slim")
    assert (engine == "native") != slim


@servers
def test_no_key_stands_in_a_manifest(pod, container):
    (key,) = [each for each in container["env"] if each["name"] == "DENSEPATH_API_KEY"]
    assert "value" not in key
    secret = key["valueFrom"]["secretKeyRef"]
    (monitor,) = documents("monitoring.yaml")
    assert list(find(monitor, "credentials")) == [secret]
    assert f"create secret generic {secret['name']} --from-literal={secret['key']}=" in PAGE


def test_probes_need_no_key_and_metrics_do():
    pytest.importorskip("fastapi")
    from densepath.serving.core.service import Service
    from densepath.serving.core.settings import Settings
    from densepath.serving.rest.app import build_app

    key = "0123456789abcdef"
    app = build_app(Service(Settings(api_key=key), []))
    probes = {h["path"] for pod in pods() for h in find(pod.values[1], "httpGet")}
    assert probes == {"/v2/health/live", "/v2/health/ready"}
    for path in sorted(probes):
        assert get(app, path) in (200, 503)
    (path,) = find(documents("monitoring.yaml"), "path")
    assert get(app, path) == 401
    assert get(app, path, key) == 200


def get(app: Any, path: str, key: str | None = None) -> int:
    """The status of GET."""
    headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
             "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
             "root_path": "", "headers": headers, "client": ("127.0.0.1", 1),
             "server": ("127.0.0.1", 2)}  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"]


@pytest.mark.parametrize("name", ["serverless.yaml", "serverless-canary.yaml", "grpc.yaml"])
def test_what_knative_refuses_is_left_out(name):
    pod = predictor(name)
    (container,) = pod["containers"]
    assert not {"terminationGracePeriodSeconds", "securityContext", "initContainers"} & pod.keys()
    assert not {"lifecycle", "startupProbe"} & container.keys()
    assert [port["name"] in ("http1", "h2c") for port in container["ports"]] == [True]
    assert pod["scaleMetric"] in ("concurrency", "rps")


def test_the_canary_is_the_stable_service_and_a_second_version():
    (stable,), (both,) = documents("inferenceservice.yaml"), documents("canary.yaml")
    (canary,) = both["spec"].pop("canary")
    assert both == stable
    assert 0 < canary["trafficPercent"] < 100
    # KServe's webhook wants a name and a STORAGE_URI, and no scaling of its own.
    assert set(canary["predictor"]) == {"name", "containers"}
    assert_is_next_version(stable["spec"]["predictor"], canary["predictor"])


def test_the_serverless_canary_is_the_next_version():
    stable, canary = predictor("serverless.yaml"), predictor("serverless-canary.yaml")
    assert 0 < canary.pop("canaryTrafficPercent") < 100
    assert_is_next_version(stable, canary)
    assert {**canary, "containers": []} == {**stable, "containers": []}


def assert_is_next_version(stable: Any, canary: Any) -> None:
    """The canary's container differs in the version that it serves, and in nothing else."""
    was, now = (copy.deepcopy(each["containers"][0]) for each in (stable, canary))
    uris = [next(e for e in each["env"] if e["name"] == "STORAGE_URI") for each in (was, now)]
    assert (was["args"].pop(1), now["args"].pop(1)) == ("pets@1=/mnt/models", "pets@2=/mnt/models")
    assert [uri.pop("value") for uri in uris] == [
        "pvc://densepath-bundles/pets/1",
        "pvc://densepath-bundles/pets/2",
    ]
    assert was == now


def test_the_grpc_service_differs_in_its_port_and_probes():
    rest, grpc = predictor("serverless.yaml"), predictor("grpc.yaml")
    for pod in (rest, grpc):
        for key in ("ports", "readinessProbe", "livenessProbe"):
            del pod["containers"][0][key]
    assert rest == grpc


def test_the_deployment_runs_the_container_of_the_inference_service():
    deployment, service, scaler, budget = documents("deployment.yaml")
    plain, ours = deployment["spec"]["template"]["spec"], predictor("inferenceservice.yaml")
    (was,), (now,) = ours["containers"], plain["containers"]
    # KServe mounts STORAGE_URI, and has names of its own.
    pvc = f"pvc://{plain['volumes'].pop()['persistentVolumeClaim']['claimName']}"
    mount = now["volumeMounts"].pop()
    storage = next(each["value"] for each in was["env"] if each["name"] == "STORAGE_URI")
    assert (mount["mountPath"], f"{pvc}/{mount['subPath']}") == ("/mnt/models", storage)
    was["env"] = [each for each in was["env"] if each["name"] == "DENSEPATH_API_KEY"]
    assert {**was, "name": "", "ports": []} == {**now, "name": "", "ports": []}
    assert plain["volumes"] == ours["volumes"]
    assert plain["terminationGracePeriodSeconds"] == ours["terminationGracePeriodSeconds"]

    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == budget["spec"]["selector"]["matchLabels"] == labels
    targets = [port["targetPort"] for port in service["spec"]["ports"]]
    assert targets == [port["containerPort"] for port in now["ports"]]
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert scaler["spec"]["minReplicas"] > budget["spec"]["minAvailable"]
    (metric,) = scaler["spec"]["metrics"]
    assert (metric["resource"]["name"], metric["resource"]["target"]["averageUtilization"]) == (
        ours["scaleMetric"],
        ours["scaleTarget"],
    )
    assert [scaler["spec"][key] for key in SCALING[:2]] == [ours[key] for key in SCALING[:2]]


def test_the_monitor_finds_every_pod():
    (monitor,) = documents("monitoring.yaml")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    labels = [predictor(path.name)["labels"] for path in FOLDER.glob("*.yaml")
              if documents(path.name)[0]["kind"] == "InferenceService"]  # fmt: skip
    labels.append(documents("deployment.yaml")[0]["spec"]["template"]["metadata"]["labels"])
    assert len(labels) == 6
    assert all(wanted <= each.items() for each in labels)


def test_the_image_starts_a_server_that_its_health_check_finds():
    entry = json.loads(re.search(r"^ENTRYPOINT (.*)$", CONTAINERFILE, re.MULTILINE)[1])
    arguments = json.loads(re.search(r"^CMD (.*)$", CONTAINERFILE, re.MULTILINE)[1])
    assert entry == ["densepath"]
    values = options(arguments)
    exposed = re.search(r"^EXPOSE (.*)$", CONTAINERFILE, re.MULTILINE)[1].split()
    assert exposed == [str(values["port"]), str(values["grpc_port"])]
    assert f"http://127.0.0.1:{values['port']}/v2/health/ready" in CONTAINERFILE


def test_the_image_has_the_extras_that_serving_takes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    taken = re.findall(r'extras\["(\w+)"\]', CONTAINERFILE)
    assert taken == ["serve", "onnx", "openvino"]
    names = [*project["dependencies"]]
    names += [each for extra in taken for each in project["optional-dependencies"][extra]]
    known = {re.match(r"[\w-]+", name)[0] for name in names}
    omitted = re.search(r'^ARG OMIT="(.*)"$', CONTAINERFILE, re.MULTILINE)[1].split()
    assert set(omitted) <= known


def test_every_manifest_is_on_the_page_and_every_one_there_exists():
    named = set(re.findall(r"deploy/kubernetes/([\w-]+\.yaml)", PAGE))
    assert named == {path.name for path in FOLDER.glob("*.yaml")}


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_what_the_page_shows_parses(text):
    assert yaml.safe_load(text)
