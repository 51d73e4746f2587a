"""Roll a model back: one commit, on a branch of its own, that lets an environment run what ran before.

It reverts release and image to those of the newest earlier promotion that still may run, under a
new promotion with the next generation (an old promotion shown again would be a replay, and servers
and directory refuse it), and puts what is rolled back onto the deny-list, so that `promote` does not
bring it back.
"""

from __future__ import annotations

from datetime import timedelta

from model_to_metal.errors import GitopsError, PromotionRefused
from model_to_metal.gitops import layout, overlay
from model_to_metal.gitops.policy import Denial, Denied
from model_to_metal.gitops.promote import Change, PromotionContext, PromotionResult, admit, propose


def rollback(context: PromotionContext, model: str, environment: str, *, reason: str) -> PromotionResult:
    """Propose that `environment` runs what it ran before, and that nothing runs the present release again.

    Raises PromotionRefused when nothing earlier may run.
    """
    policy = context.policy(environment)
    place = layout.folder(environment, model)
    present = context.folder(environment, model).get(layout.RELEASE)
    if present is None:
        raise GitopsError(f"{environment} does not run {model}", where=place)
    # Not verified: what is rolled back may be what nobody should have believed.
    bad = overlay.claimed_release(present)
    image = str(bad.parameters["image"])
    denied = context.denied().add(Denial(model, bad.digest, image, environment, reason))
    history = context.repository.history(context.base, f"{place}/{layout.RELEASE}")
    bundle = _earlier(context, history[1:], denied, environment, model)
    release = admit(context, bundle, model, policy, environment)
    change = Change(
        environment,
        release,
        bundle,
        branch=layout.branch("rollback", environment, model, bad.digest),
        title=f"revert({environment}): roll {model} back from {bad.digest.removeprefix('sha256:')[:12]}",
        notes=(f"This reverts what commit {history[0]} made {environment} run.", f"Reason: {_line(reason)}", ""),
        others={layout.DENIED: denied.to_bytes()},
        # One second after what it reverts: the same each time, and in order.
        when=context.epoch or context.repository.time(history[0]) + timedelta(seconds=1),
    )
    return propose(context, change, policy)


def _earlier(context: PromotionContext, history: list[str], denied: Denied, environment: str, model: str) -> bytes:
    """The newest release bundle in the folder's history that the deny-list does not hold."""
    for commit in history:
        bundle = context.folder(environment, model, commit).get(layout.RELEASE)
        if bundle is None:
            continue
        claimed = overlay.claimed_release(bundle)
        if denied.find(claimed.digest, str(claimed.parameters["image"])) is None:
            return bundle
    raise PromotionRefused(
        f"{environment} has never run another release of {model} that may still run",
        where=layout.folder(environment, model),
        fix=f"helix run release {model}, then helix promote {model} --to {environment}",
    )


def _line(reason: str) -> str:
    return " ".join(reason.split())
