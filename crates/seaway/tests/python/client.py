#!/usr/bin/env python3
"""What programs do with PyPI's `kubernetes` client, held against a cluster.

    client.py KUBECONFIG PART...

Each PART is a function below. It prints `ok PART`, or ends with a traceback. `conformance_clients.rs` runs it.
"""

import datetime
import json
import sys
import threading
import time

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

NAMESPACE = "default"
PATIENCE = 60


def refused(status, call):
    """The refusal that a call must end with."""
    try:
        call()
    except ApiException as error:
        assert error.status == status, f"{error.status} instead of {status}: {error.body}"
        return json.loads(error.body)
    raise AssertionError(f"nobody refused with {status}")


def config_map(name, labels=None, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data=data)


def crud():
    """Create, read, list, replace, delete, with the errors of each."""
    core = client.CoreV1Api()
    made = core.create_namespaced_config_map(NAMESPACE, config_map("crud", {"of": "crud"}, a="1"))
    assert made.metadata.uid and made.metadata.resource_version
    taken = refused(409, lambda: core.create_namespaced_config_map(NAMESPACE, config_map("crud")))
    assert taken["reason"] == "AlreadyExists", taken

    read = core.read_namespaced_config_map("crud", NAMESPACE)
    assert read.data == {"a": "1"}
    listed = core.list_namespaced_config_map(NAMESPACE, label_selector="of=crud")
    assert [item.metadata.name for item in listed.items] == ["crud"]
    everywhere = core.list_config_map_for_all_namespaces(field_selector="metadata.name=crud")
    assert len(everywhere.items) == 1

    stale = core.read_namespaced_config_map("crud", NAMESPACE)
    read.data["a"] = "2"
    changed = core.replace_namespaced_config_map("crud", NAMESPACE, read)
    assert int(changed.metadata.resource_version) > int(made.metadata.resource_version)
    conflict = refused(409, lambda: core.replace_namespaced_config_map("crud", NAMESPACE, stale))
    assert conflict["reason"] == "Conflict", conflict

    dry = core.create_namespaced_config_map(NAMESPACE, config_map("dry"), dry_run="All")
    assert dry.metadata.name == "dry"
    refused(404, lambda: core.read_namespaced_config_map("dry", NAMESPACE))
    invalid = refused(422, lambda: core.create_namespaced_config_map(NAMESPACE, config_map("No Name")))
    assert invalid["details"]["causes"][0]["field"] == "metadata.name", invalid

    core.delete_namespaced_config_map("crud", NAMESPACE)
    refused(404, lambda: core.read_namespaced_config_map("crud", NAMESPACE))

    for name in ["page-a", "page-b", "page-c"]:
        core.create_namespaced_config_map(NAMESPACE, config_map(name, {"of": "pages"}))
    first = core.list_namespaced_config_map(NAMESPACE, label_selector="of=pages", limit=2)
    rest = core.list_namespaced_config_map(
        NAMESPACE, label_selector="of=pages", limit=2, _continue=first.metadata._continue
    )
    names = [item.metadata.name for item in first.items + rest.items]
    assert names == ["page-a", "page-b", "page-c"], names
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="of=pages")
    assert not core.list_namespaced_config_map(NAMESPACE, label_selector="of=pages").items


def patches():
    """Every kind of patch, as the client chooses them."""
    core = client.CoreV1Api()
    service = client.V1Service(
        metadata=client.V1ObjectMeta(name="patched"),
        spec=client.V1ServiceSpec(
            selector={"app": "patched"},
            ports=[client.V1ServicePort(name="http", port=80), client.V1ServicePort(name="https", port=443)],
        ),
    )
    core.create_namespaced_service(NAMESPACE, service)

    # An object: strategic merge, which knows that ports go by their number.
    strategic = core.patch_namespaced_service(
        "patched", NAMESPACE, {"spec": {"ports": [{"port": 443, "targetPort": 8443}]}}
    )
    ports = {port.port: port.target_port for port in strategic.spec.ports}
    assert ports == {80: 80, 443: 8443}, ports
    # A list: JSON patch.
    operations = [
        {"op": "test", "path": "/spec/ports/0/port", "value": 80},
        {"op": "replace", "path": "/spec/ports/0/port", "value": 8080},
        {"op": "add", "path": "/metadata/labels", "value": {"by": "json"}},
    ]
    by_json = core.patch_namespaced_service(
        "patched", NAMESPACE, operations, _content_type="application/json-patch+json"
    )
    assert by_json.metadata.labels == {"by": "json"} and by_json.spec.ports[0].port == 8080
    # Merge patch: a list is replaced as a whole.
    merged = core.patch_namespaced_service(
        "patched",
        NAMESPACE,
        {"metadata": {"labels": {"by": None}}, "spec": {"ports": [{"name": "one", "port": 1}]}},
        _content_type="application/merge-patch+json",
    )
    assert [port.port for port in merged.spec.ports] == [1] and not merged.metadata.labels
    refused(
        422,
        lambda: core.patch_namespaced_service(
            "patched",
            NAMESPACE,
            [{"op": "test", "path": "/spec/ports/0/port", "value": 5}],
            _content_type="application/json-patch+json",
        ),
    )
    core.delete_namespaced_service("patched", NAMESPACE)


def apply():
    """Server-side apply by two managers, with a conflict and its end."""
    api = client.ApiClient()
    core = client.CoreV1Api(api)

    def applied(manager, force=None, **data):
        wanted = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "applied"},
            "data": data,
        }
        return core.patch_namespaced_config_map(
            "applied",
            NAMESPACE,
            wanted,
            field_manager=manager,
            force=force,
            _content_type="application/apply-patch+yaml",
        )

    applied("first", a="1", b="1")
    both = applied("second", c="2")
    assert both.data == {"a": "1", "b": "1", "c": "2"}
    managers = {entry.manager for entry in both.metadata.managed_fields}
    assert managers == {"first", "second"}, managers
    conflict = refused(409, lambda: applied("second", a="2"))
    assert conflict["details"]["causes"][0]["reason"] == "FieldManagerConflict", conflict
    forced = applied("second", force=True, a="2")
    # What a manager applies no more, and nobody else does, goes.
    assert forced.data == {"a": "2", "b": "1"}, forced.data
    core.delete_namespaced_config_map("applied", NAMESPACE)


def watches():
    """A watch that is told of changes by another thread, ends by itself, and goes on from a version."""
    core = client.CoreV1Api()
    version = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version

    def change():
        core.create_namespaced_config_map(NAMESPACE, config_map("watched", {"of": "watches"}, a="1"))
        core.patch_namespaced_config_map("watched", NAMESPACE, {"data": {"a": "2"}})
        core.patch_namespaced_config_map("watched", NAMESPACE, {"metadata": {"labels": {"of": None}}})
        core.delete_namespaced_config_map("watched", NAMESPACE)

    changing = threading.Thread(target=change)
    watching = watch.Watch()
    told = []
    changing.start()
    for event in watching.stream(
        core.list_namespaced_config_map,
        NAMESPACE,
        label_selector="of=watches",
        resource_version=version,
        timeout_seconds=PATIENCE,
    ):
        told.append((event["type"], event["object"].data["a"]))
        if event["type"] == "DELETED":
            watching.stop()
    changing.join()
    # Without its label it is gone for this watch.
    assert told == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")], told

    again = [
        event["type"]
        for event in watch.Watch().stream(
            core.list_namespaced_config_map,
            NAMESPACE,
            label_selector="of=watches",
            resource_version=version,
            timeout_seconds=1,
        )
    ]
    assert again == ["ADDED", "MODIFIED", "DELETED"], again
    bookmarked = watch.Watch()
    for event in bookmarked.stream(
        core.list_namespaced_config_map,
        NAMESPACE,
        resource_version=version,
        allow_watch_bookmarks=True,
        timeout_seconds=3,
    ):
        pass
    assert int(bookmarked.resource_version) > int(version)


def dynamically():
    """Kinds found through discovery, and objects without types of their own."""
    dynamic_client = dynamic.DynamicClient(client.ApiClient())
    services = dynamic_client.resources.get(api_version="v1", kind="Service")
    assert services.namespaced and services.name == "services"
    deployments = dynamic_client.resources.get(api_version="apps/v1", kind="Deployment")
    manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "found"},
        "spec": {"selector": {"app": "found"}, "ports": [{"port": 80}]},
    }
    made = services.create(body=manifest, namespace=NAMESPACE)
    assert made.spec.clusterIP
    got = services.get(name="found", namespace=NAMESPACE)
    assert got.spec.ports[0].targetPort == 80
    services.patch(
        name="found",
        namespace=NAMESPACE,
        body={"metadata": {"labels": {"a": "b"}}},
        content_type="application/merge-patch+json",
    )
    assert [item.metadata.name for item in services.get(label_selector="a=b").items] == ["found"]
    told = []
    for event in services.watch(namespace=NAMESPACE, field_selector="metadata.name=found", timeout=1):
        told.append((event["type"], event["object"].metadata.name))
    assert told == [("ADDED", "found")], told
    services.delete(name="found", namespace=NAMESPACE)
    assert deployments.get(namespace=NAMESPACE).kind == "DeploymentList"
    try:
        dynamic_client.resources.get(api_version="v1", kind="Flavour")
        raise AssertionError("there is no such kind")
    except dynamic.exceptions.ResourceNotFoundError:
        pass

    utils.create_from_dict(
        client.ApiClient(),
        {"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "from-dict"}, "data": {"a": "b"}},
        ]},
        namespace=NAMESPACE,
    )
    client.CoreV1Api().delete_namespaced_config_map("from-dict", NAMESPACE)


def tables():
    """Objects as kubectl prints them, and only their metadata."""
    api = client.ApiClient()

    def get(accept, path):
        answer = api.call_api("GET", api.configuration.host + path, {"Accept": accept})
        answer.read()
        return json.loads(answer.data)

    table = get("application/json;as=Table;v=v1;g=meta.k8s.io", "/api/v1/namespaces")
    assert table["kind"] == "Table", table
    assert [column["name"] for column in table["columnDefinitions"]][:3] == ["Name", "Status", "Age"]
    row = next(row for row in table["rows"] if row["cells"][0] == NAMESPACE)
    assert row["cells"][1] == "Active" and row["object"]["kind"] == "PartialObjectMetadata"
    partial = get("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "/api/v1/namespaces")
    assert partial["kind"] == "PartialObjectMetadataList" and "spec" not in partial["items"][0]


def elections():
    """Two contenders for a Lease, and a take-over, by optimistic concurrency alone."""
    coordination = client.CoordinationV1Api()

    def lease(holder, seen=None):
        now = datetime.datetime.now(datetime.timezone.utc)
        return client.V1Lease(
            metadata=client.V1ObjectMeta(name="elected", resource_version=seen),
            spec=client.V1LeaseSpec(holder_identity=holder, lease_duration_seconds=15, renew_time=now),
        )

    first = coordination.create_namespaced_lease(NAMESPACE, lease("a"))
    refused(409, lambda: coordination.create_namespaced_lease(NAMESPACE, lease("b")))
    seen = first.metadata.resource_version
    renewed = coordination.replace_namespaced_lease("elected", NAMESPACE, lease("a", seen))
    # `b` believes what it saw before and is refused; with what is there now it takes over.
    refused(409, lambda: coordination.replace_namespaced_lease("elected", NAMESPACE, lease("b", seen)))
    taken = coordination.replace_namespaced_lease(
        "elected", NAMESPACE, lease("b", renewed.metadata.resource_version)
    )
    assert taken.spec.holder_identity == "b"
    coordination.delete_namespaced_lease("elected", NAMESPACE)


def running_pod(name, image):
    core = client.CoreV1Api()
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": image, "ports": [{"containerPort": 80}]}]},
    }
    core.create_namespaced_pod(NAMESPACE, pod)
    end = time.time() + PATIENCE
    while time.time() < end:
        status = core.read_namespaced_pod_status(name, NAMESPACE).status
        if any(c.type == "Ready" and c.status == "True" for c in status.conditions or []):
            return core
        time.sleep(0.1)
    raise AssertionError(f"{name} does not get ready: {status}")


def execs():
    """Programs in a Pod, over the client's WebSocket, and what the Pod says."""
    core = running_pod("execs", "seaway/whoami")
    one = stream(
        core.connect_get_namespaced_pod_exec,
        "execs", NAMESPACE, command=["/bin/echo", "spoken"],
        stderr=True, stdin=False, stdout=True, tty=False,
    )
    assert one.strip() == "spoken", one
    shell = stream(
        core.connect_get_namespaced_pod_exec,
        "execs", NAMESPACE, command=["/bin/cat"],
        stderr=True, stdin=True, stdout=True, tty=False, _preload_content=False,
    )
    shell.write_stdin("heard\n")
    line = shell.readline_stdout(timeout=PATIENCE)
    assert line == "heard", line
    shell.close()
    failed = stream(
        core.connect_get_namespaced_pod_exec,
        "execs", NAMESPACE, command=["/bin/false"],
        stderr=True, stdin=False, stdout=True, tty=False, _preload_content=False,
    )
    failed.run_forever(timeout=PATIENCE)
    assert failed.returncode == 1, failed.returncode
    log = core.read_namespaced_pod_log("execs", NAMESPACE)
    assert isinstance(log, str)
    core.delete_namespaced_pod("execs", NAMESPACE, grace_period_seconds=0)


def forwards():
    """A port of a Pod, over the client's WebSocket."""
    core = running_pod("forwards", "seaway/whoami")
    forward = portforward(core.connect_get_namespaced_pod_portforward, "forwards", NAMESPACE, ports="80")
    connection = forward.socket(80)
    connection.setblocking(True)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: forwards\r\nConnection: close\r\n\r\n")
    answer = b""
    while piece := connection.recv(4096):
        answer += piece
    assert answer.startswith(b"HTTP/1.1 200") and b"forwards" in answer, answer
    assert forward.error(80) is None, forward.error(80)
    core.delete_namespaced_pod("forwards", NAMESPACE, grace_period_seconds=0)


def main():
    config.load_kube_config(sys.argv[1])
    for part in sys.argv[2:]:
        since = time.time()
        globals()[part]()
        print("ok", part, flush=True)
        print(f"{part}: {time.time() - since:.1f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
