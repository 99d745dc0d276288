"""Who is under the floor, and why."""

from __future__ import annotations

import pytest

from seccomp_floor.decide import ANNOTATION, Decision, Reason, Subject, decide
from seccomp_floor.errors import InputError
from seccomp_floor.floor import Apply, OptOut, Policy

ANYBODY = Policy(opt_out=OptOut(namespaces=("*",)))
POD, APP, BARE = f"{ANNOTATION}/pod", f"{ANNOTATION}/container.app", ANNOTATION


def decided(
    policy: Policy,
    annotations: dict[str, str] | None = None,
    *,
    container: str = "app",
    handler: str | None = "",
    namespace: str | None = "shop",
) -> Decision:
    return decide(policy, Subject(container, handler, namespace, annotations or {}))


def test_every_container_is_under_the_floor() -> None:
    for handler in ("", "runc", "*", None):
        assert decided(Policy(), handler=handler) == Decision(True, Reason.SELECTED, "the floor applies")


@pytest.mark.parametrize(
    ("annotations", "out"),
    [
        ({POD: "true"}, True),
        ({POD: "false"}, False),
        ({BARE: "true"}, True),
        ({APP: "true"}, True),
        ({APP: "true", POD: "false"}, True),
        ({APP: "false", POD: "true"}, False),
        ({APP: "false", POD: "true", BARE: "true"}, False),
        ({POD: "false", BARE: "true"}, False),
        ({POD: "true", BARE: "false"}, True),
        ({f"{ANNOTATION}/container.other": "true"}, False),
        ({f"{ANNOTATION}/container.": "true"}, False),
        ({f"{ANNOTATION}/app": "true"}, False),
        ({f"{ANNOTATION}/Pod": "true"}, False),
        ({"opt-out.example.com/pod": "true"}, False),
        ({"kubectl.kubernetes.io/last-applied-configuration": f'{{"{POD}":"true"}}'}, False),
    ],
)
def test_annotations(annotations: dict[str, str], out: bool) -> None:
    """The container's own form wins over the pod's, which wins over the bare key."""
    decision = decided(ANYBODY, annotations)
    assert decision.floored is not out
    assert decision.reason is (Reason.OPTED_OUT if out else Reason.SELECTED)


def test_the_reason_names_the_annotation() -> None:
    assert decided(ANYBODY, {APP: "true", POD: "true"}).detail == f"opted out by annotation {APP}"
    assert decided(ANYBODY, {POD: "true"}).detail == f"opted out by annotation {POD}"


@pytest.mark.parametrize("value", ["", "True", "TRUE", "yes", "1", " true", "true\n", "treu", "\ud800" * 10**5])
@pytest.mark.parametrize("policy", [Policy(), ANYBODY, Policy(opt_out=OptOut(honour=False))])
def test_a_value_that_is_no_boolean_is_no_decision(policy: Policy, value: str) -> None:
    """Not even where the opt-out would not be honoured."""
    with pytest.raises(InputError) as caught:
        decided(policy, {POD: value})
    assert caught.value.where == f"annotation {POD}"
    assert len(str(caught.value)) < 1000


def test_only_the_annotation_that_counts_is_read() -> None:
    assert not decided(ANYBODY, {APP: "true", POD: "maybe"}).floored
    with pytest.raises(InputError, match=r"container\.app"):
        decided(ANYBODY, {APP: "maybe", POD: "true"})


def test_a_long_container_name_can_use_the_pod_form() -> None:
    """Kubernetes takes 63 characters after the slash; what an engine without that limit brings is looked up all the same."""
    name = "a" * 63
    assert decided(ANYBODY, {POD: "true"}, container=name).reason is Reason.OPTED_OUT
    assert decided(ANYBODY, {f"{ANNOTATION}/container.{name}": "true"}, container=name).reason is Reason.OPTED_OUT
    assert decided(ANYBODY, {f"{ANNOTATION}/container.{name[:53]}": "true"}, container=name).floored


@pytest.mark.parametrize(
    ("namespaces", "namespace", "honoured"),
    [
        ((), "shop", False),
        (("kube-system",), "shop", False),
        (("shop",), "shop", True),
        (("*",), "shop", True),
        (("*",), "", True),
        (("sho*",), "shop", False),
        (("shop",), "Shop", False),
        (("shop",), "shop2", False),
        (("shop",), "", False),
        ((), None, True),
        (("shop",), None, True),
    ],
)
def test_whose_opt_out_is_honoured(namespaces: tuple[str, ...], namespace: str | None, honoured: bool) -> None:
    """A container outside of Kubernetes is nobody's but its owner's."""
    decision = decided(Policy(opt_out=OptOut(namespaces=namespaces)), {POD: "true"}, namespace=namespace)
    assert decision.floored is not honoured
    assert decision.reason is (Reason.OPTED_OUT if honoured else Reason.OPT_OUT_NOT_HONOURED)
    if not honoured:
        assert POD in decision.detail
        assert "optOut.namespaces" in decision.detail


def test_honour_false_is_for_all() -> None:
    policy = Policy(opt_out=OptOut(honour=False, namespaces=("*",)))
    for namespace in ("shop", None):
        decision = decided(policy, {POD: "true"}, namespace=namespace)
        assert decision.reason is Reason.OPT_OUT_NOT_HONOURED
        assert decision.floored
        assert "optOut.honour is false" in decision.detail


def test_an_annotation_that_asks_for_nothing_is_not_refused() -> None:
    assert decided(Policy(opt_out=OptOut(honour=False)), {POD: "false"}).reason is Reason.SELECTED


@pytest.mark.parametrize(
    ("handlers", "handler", "floored"),
    [
        (("*",), "kata", True),
        (("*",), "", True),
        (("runc", "*"), "kata", True),
        (("runc",), "runc", True),
        (("runc",), "", False),
        (("",), "", True),
        (("",), "runc", False),
        (("run*",), "runc", False),
        (("runc",), "RUNC", False),
        ((), "", False),
        ((), None, True),
        (("runc",), None, True),
    ],
)
def test_handlers(handlers: tuple[str, ...], handler: str | None, floored: bool) -> None:
    """Exact names; an engine that has no handlers cannot be told apart by them."""
    decision = decided(Policy(apply=Apply(runtime_handlers=handlers)), handler=handler)
    assert decision.floored is floored
    assert decision.reason is (Reason.SELECTED if floored else Reason.HANDLER_NOT_SELECTED)


def test_the_default_handler_has_a_name_for_people() -> None:
    assert '"" (the default)' in decided(Policy(apply=Apply(runtime_handlers=("runc",)))).detail


def test_where_the_floor_does_not_apply_no_annotation_is_read() -> None:
    policy = Policy(apply=Apply(runtime_handlers=("runc",)))
    assert decided(policy, {POD: "maybe"}, handler="kata").reason is Reason.HANDLER_NOT_SELECTED
