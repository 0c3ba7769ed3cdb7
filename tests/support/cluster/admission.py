"""What the stand-in API server refuses to create: schemas, names, labels, pod security; and who may do what.

The schemas are Kubernetes' own (the package `kubernetes-validate`), strict: a field that there is not is an error.
Names, labels and the pod security standard `restricted` are checked by the rules of the documentation, as schemas do
not have them.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import yaml

VERSION: Final = "1.37.0"
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_LABEL_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_ENV_NAME: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_VOLUMES: Final = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def problems(manifest: dict[str, Any]) -> list[str]:
    """Why it is refused with 422."""
    try:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    except kubernetes_validate.ValidationError as exc:
        return [f"{'.'.join(map(str, exc.path))}: {exc.message}"]
    except kubernetes_validate.SchemaNotFoundError as exc:
        return [exc.message]
    return [*_metadata(manifest["metadata"], "metadata"), *_kind(manifest)]


def insecurities(spec: dict[str, Any]) -> list[str]:
    """Why the pod security standard `restricted` forbids a pod, which makes it a 403."""
    found = [f"{field} must not be set" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    found += [
        f"volume {v['name']} is of a kind that is forbidden" for v in spec.get("volumes", []) if not _VOLUMES & v.keys()
    ]
    pod = spec.get("securityContext", {})
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own = {**pod, **container.get("securityContext", {})}
        if own.get("allowPrivilegeEscalation") is not False:
            found.append("allowPrivilegeEscalation != false")
        if "ALL" not in own.get("capabilities", {}).get("drop", []):
            found.append("unrestricted capabilities")
        if own.get("runAsNonRoot") is not True or own.get("runAsUser") == 0:
            found.append("runAsNonRoot != true")
        if own.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            found.append("seccompProfile")
    return found


def rules_of(manifests: Sequence[Path], role: str) -> list[dict[str, Any]]:
    """Of the Role named `role` in these files."""
    documents = [one for file in manifests for one in yaml.safe_load_all(file.read_text()) if one]
    found = [one for one in documents if one["kind"] == "Role" and one["metadata"]["name"] == role]
    assert len(found) == 1, f"{len(found)} roles named {role}"
    rules: list[dict[str, Any]] = found[0]["rules"]
    return rules


def granted(rules: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """(verb, resource) pairs; a rule for a resource in a group that it is not in grants nothing."""
    return {
        (verb, resource)
        for rule in rules
        for verb in rule["verbs"]
        for resource in rule["resources"]
        if ("batch" if resource == "jobs" else "") in rule["apiGroups"]
    }


def _kind(manifest: dict[str, Any]) -> Iterator[str]:
    match manifest["kind"]:
        case "Job":
            template = manifest["spec"]["template"]
            if len(manifest["metadata"]["name"]) > 63:
                yield "metadata.name: must be no more than 63 characters"
            yield from _metadata(template["metadata"], "spec.template.metadata", named=False)
            if template["spec"].get("restartPolicy") not in ("OnFailure", "Never"):
                yield "spec.template.spec.restartPolicy: Required value"
            yield from _pod(template["spec"])
        case "Secret":
            yield from (
                f"data: {key!r}" for key in manifest.get("stringData", {}) if not re.fullmatch(r"[-._a-zA-Z0-9]+", key)
            )


def _pod(spec: dict[str, Any]) -> Iterator[str]:
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    for container in spec["containers"]:
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"volumeMounts: Not found: {mount['name']!r}"
        for variable in container.get("env", []):
            if not _ENV_NAME.fullmatch(variable["name"]):
                yield f"env: Invalid value: {variable['name']!r}"
    if spec.get("activeDeadlineSeconds", 1) < 1:
        yield "activeDeadlineSeconds: must be between 1 and 2147483647"


def _metadata(meta: dict[str, Any], where: str, *, named: bool = True) -> Iterator[str]:
    name = meta.get("name", "")
    if named and (not _NAME.fullmatch(name) or len(name) > 253):
        yield f"{where}.name: Invalid value: {name!r}"
    for key, value in meta.get("labels", {}).items():
        if not _LABEL_VALUE.fullmatch(value) or len(value) > 63:
            yield f"{where}.labels: Invalid value: {value!r}"
        if not _LABEL_KEY.fullmatch(key) or len(key.rpartition("/")[2]) > 63:
            yield f"{where}.labels: Invalid value: {key!r}"
    if sum(len(key) + len(value) for key, value in meta.get("annotations", {}).items()) > 256 * 1024:
        yield f"{where}.annotations: Too long"
