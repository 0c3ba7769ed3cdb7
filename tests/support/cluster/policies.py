"""Who may speak with whom under NetworkPolicies, by the rules of their documentation; there is no network here to try.

A pod that no policy of a direction selects may do everything in it; else what any of them allows. Both ends must agree.
"""

import ipaddress
from typing import Any

import msgspec

Labels = dict[str, str]


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A pod, or with `address` somebody outside."""

    namespace: str = ""
    labels: Labels = {}
    address: str | None = None


def may_speak(policies: list[dict[str, Any]], source: Peer, target: Peer, port: int) -> bool:
    return _allows(policies, "Egress", source, target, port) and _allows(policies, "Ingress", target, source, port)


def matches(selector: dict[str, Any], labels: Labels) -> bool:
    assert not selector.get("matchExpressions"), "not needed so far"
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _allows(policies: list[dict[str, Any]], direction: str, one: Peer, other: Peer, port: int) -> bool:
    if one.address is not None:
        return True
    mine = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == one.namespace
        and direction in policy["spec"]["policyTypes"]
        and matches(policy["spec"]["podSelector"], one.labels)
    ]
    side = "to" if direction == "Egress" else "from"
    rules = [(policy, rule) for policy in mine for rule in policy.get(direction.lower()) or []]
    return not mine or any(_covers(rule, side, one.namespace, other, port) for _, rule in rules)


def _covers(rule: dict[str, Any], side: str, namespace: str, other: Peer, port: int) -> bool:
    ports, peers = rule.get("ports"), rule.get(side)
    if ports and port not in [one["port"] for one in ports]:
        return False
    return not peers or any(_is(peer, namespace, other) for peer in peers)


def _is(peer: dict[str, Any], namespace: str, other: Peer) -> bool:
    if "ipBlock" in peer:
        return other.address is not None and _contains(peer["ipBlock"], other.address)
    if other.address is not None:
        return False
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace}):
            return False
    elif other.namespace != namespace:
        return False
    return matches(peer.get("podSelector", {}), other.labels)


def _contains(block: dict[str, Any], address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return ip in ipaddress.ip_network(block["cidr"]) and not any(
        ip in ipaddress.ip_network(hole) for hole in block.get("except", [])
    )
