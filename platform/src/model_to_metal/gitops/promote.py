"""Promote a release: one commit, on a branch of its own, that lets an environment run it.

Takes a signed release and an environment; verifies the release in the registry, asks the
environment's policy and the deny-list (both as the base branch has them), signs a promotion, and
commits the model's folder under `gitops/argocd/environments/<environment>/`. Done again it
changes nothing: author, date and bytes follow from the release, and a promotion that was signed
already is taken as it is. Neither working tree nor current branch is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from helix_lineage.attestations.dsse import BUNDLE_TYPE
from helix_lineage.attestations.promotion import PREDICATE_TYPE, check_succession, generation_of, verify_promotion
from helix_lineage.attestations.release import VerifiedRelease, verify_release
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError
from helix_lineage.formats.canonical import dumps
from helix_lineage.records.chain import Promotion
from model_to_metal.errors import GitopsError, PromotionRefused
from model_to_metal.gitops import layout, overlay, succession
from model_to_metal.gitops.manifests import ManifestFault
from model_to_metal.gitops.policy import Denied, Policy
from model_to_metal.gitops.repository import Repository
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Client, Image
from model_to_metal.supply_chain import provenance
from model_to_metal.supply_chain.verify import verify_image

Sign = Callable[[bytes], bytes]
"""A statement's bytes → its signed bundle."""
Check = Callable[[Mapping[str, bytes], str, str], list[ManifestFault]]
"""Files under gitops/argocd, environment, model → faults of what Argo CD would make of them."""


@dataclass(frozen=True, slots=True)
class PromotionContext:
    """All that a promotion needs."""

    repository: Repository
    base: str
    """The commit that the promotion stands on, and whose policies hold."""
    client: Client
    trust: Trust
    cosign: Path
    sign: Sign
    check: Check
    at: datetime
    """When keys must hold."""
    epoch: datetime | None = None
    """The date of the commit, where it is not the release's (SOURCE_DATE_EPOCH)."""
    writes: bool = True
    """Otherwise a branch that does not have these very bytes is refused."""

    def policy(self, environment: str) -> Policy:
        """The environment's policy. Raises GitopsError when there is no such environment."""
        path = layout.policy(environment)
        data = self.repository.read(self.base, path)
        if data is None:
            known = ", ".join(self.repository.folders(self.base, layout.ENVIRONMENTS)) or "none"
            raise GitopsError(f"no environment is called {environment!r}; there are: {known}", where=path)
        return Policy.parse(data, where=path)

    def denied(self) -> Denied:
        """The deny-list; a missing one is an error, for it would deny nothing."""
        data = self.repository.read(self.base, layout.DENIED)
        if data is None:
            raise GitopsError("there is no deny-list on the base branch", where=layout.DENIED)
        return Denied.parse(data)

    def folder(self, environment: str, model: str, commit: str | None = None) -> dict[str, bytes]:
        """File name → bytes of what the environment runs of the model; empty before the first promotion."""
        place = layout.folder(environment, model)
        found = self.repository.files(commit or self.base, place)
        return {path.removeprefix(f"{place}/"): data for path, data in found.items()}


@dataclass(frozen=True, slots=True)
class PromotionResult:
    """A promotion that is in Git."""

    branch: str | None
    """Where it is proposed; None when the base branch runs it already."""
    commit: str
    promotion: Promotion
    changed: bool
    """Whether a commit was made now."""


@dataclass(frozen=True, slots=True)
class Change:
    """A commit to be made: what one release running in one environment needs."""

    environment: str
    release: VerifiedRelease
    bundle: bytes
    """The release's own."""
    branch: str
    title: str
    notes: tuple[str, ...]
    """Lines of the message."""
    others: Mapping[str, bytes]
    """Path → bytes of what changes beside the model's folder."""
    when: datetime

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.release.release.parameters["model"])


def promote(context: PromotionContext, bundle: bytes, model: str, environment: str) -> PromotionResult:
    """Propose that `environment` runs the release of `bundle`.

    Raises PromotionRefused with the reason when it may not run there, GitopsError when the branch
    or a file is not what it should be.
    """
    policy = context.policy(environment)
    release = admit(context, bundle, model, policy, environment)
    newest_known(context, environment, model)
    _ran_before(context, release, policy)
    digest = release.release.digest
    when = _released_at(context, release)
    change = Change(
        environment,
        release,
        bundle,
        branch=layout.branch("promote", environment, model, digest),
        title=f"chore({environment}): promote {model} to {digest.removeprefix('sha256:')[:12]}",
        notes=(),
        others={},
        when=when,
    )
    if (running := _runs_already(context, change, policy)) is not None:
        return PromotionResult(None, context.base, running, changed=False)
    return propose(context, change, policy)


def carried(context: PromotionContext, model: str, image: str) -> bytes:
    """The bundle of the one release that the image carries in the registry. Raises PromotionRefused."""
    found: dict[str, bytes] = {}
    asked = Image.parse(f"{artifacts.repository(layout.name(model))}@{image}", registry=context.client.address)
    for _, bundle in artifacts.attached(context.client, asked, BUNDLE_TYPE):
        try:
            found[verify_release(bundle, context.trust, image=image, at=context.at).release.digest] = bundle
        except LineageError:
            continue
    if len(found) != 1:
        what = f"{len(found)} releases" if found else "no release that verifies"
        raise PromotionRefused(f"the image carries {what}", where=str(asked), fix="name one with --release FILE")
    return next(iter(found.values()))


def admit(context: PromotionContext, bundle: bytes, model: str, policy: Policy, environment: str) -> VerifiedRelease:
    """May this release run in the environment? Verified here and in the registry. Raises PromotionRefused."""
    try:
        release = verify_release(bundle, context.trust, image=None, at=context.at)
    except LineageError as error:
        raise PromotionRefused(f"the release does not verify: {error.what}", where=error.where) from error
    digest, image = release.release.digest, release.statement_subject.digest
    if release.release.parameters["model"] != model:
        raise PromotionRefused(f"the release is of {release.release.parameters['model']!r}, not of {model!r}")
    if denial := context.denied().find(digest, image):
        what = "this release" if denial.release == digest else "the image of this release"
        raise PromotionRefused(
            f"{what} is denied: it was rolled back in {denial.environment} ({denial.reason})",
            where=layout.DENIED, fix=f"helix run release {model}",
        )  # fmt: skip
    if release.builder not in policy.builders:
        raise PromotionRefused(
            f"{environment} does not take releases of the builder {release.builder!r}, only of: "
            f"{', '.join(policy.builders) or 'nobody'}",
            where=layout.policy(environment),
        )
    asked = Image(context.client.address, artifacts.repository(model), image)
    report = verify_image(context.client, asked, context.trust, context.cosign, at=context.at, release=digest)
    if not report.passed:
        failed = "; ".join(f"{check.name}: {check.detail}" for check in report.checks if not check.passed)
        raise PromotionRefused(f"the image does not verify: {failed}", where=str(asked), fix=f"helix verify {asked}")
    return release


def newest_known(context: PromotionContext, environment: str, model: str) -> int:
    """The newest generation in Git's history, 0 before the first. Raises PromotionRefused when the base went back."""
    known = succession.newest(context.repository, context.base, environment, model, context.trust)
    if known is None:
        return 0
    bundle = context.folder(environment, model).get(layout.PROMOTION)
    place = layout.folder(environment, model)
    if bundle is None:
        wrong: str | None = (
            f"generation regression: nothing runs, but commit {known.commit[:12]} had {known.generation}"
        )
    else:
        try:
            wrong = succession.regression(overlay.claimed_promotion(bundle), known)
        except GitopsError:
            return known.generation  # who verifies it says what it is
    if wrong is not None:
        fix = f"git checkout {known.commit[:12]} -- {place}, and commit that"
        raise PromotionRefused(f"{environment} is not what was promoted last: {wrong}", where=place, fix=fix)
    return known.generation


def propose(context: PromotionContext, change: Change, policy: Policy) -> PromotionResult:
    """Make the change's commit and let its branch point to it; a branch that proposes it already is left alone."""
    newest_known(context, change.environment, change.model)
    tip = context.repository.branch_tip(change.branch)
    record = _next(context, change)
    signed = None if tip is None else _signed_at(context, change, record, tip)
    promotion = signed or context.sign(_statement(record, change))
    _verify_own(context, change, record, promotion)
    if (
        signed
        and tip
        and _stands_still(context, change, tip)
        and tip == _commit(context, change, promotion, policy, tip)
    ):
        return PromotionResult(change.branch, tip, record, changed=False)
    commit = _commit(context, change, promotion, policy, None)
    if commit != tip and not context.writes:
        raise PromotionRefused(f"the branch is at {tip}, but made again the commit is {commit}", where=change.branch)
    _check_commit(context, change, commit)
    if commit != tip:
        context.repository.move(change.branch, commit, tip, why=change.title)
    return PromotionResult(change.branch, commit, record, changed=commit != tip)


def _released_at(context: PromotionContext, release: VerifiedRelease) -> datetime:
    """The time of the release's commit, which this clone must have: what runs must be traceable to Git."""
    commit = str(release.release.parameters["commit"])
    try:
        return context.epoch or context.repository.time(context.repository.commit_of(commit))
    except GitopsError as error:
        model = release.release.parameters["model"]
        raise PromotionRefused(
            f"the release is of commit {commit[:12]}, which this clone does not have",
            where=str(context.repository.root),
            fix=f"git fetch --all, or release a commit that is here: helix run release {model}",
        ) from error


def _ran_before(context: PromotionContext, release: VerifiedRelease, policy: Policy) -> None:
    """The same release runs in the environment that comes first, if there is one."""
    if policy.after is None:
        return
    model = str(release.release.parameters["model"])
    files = context.folder(policy.after, model)
    where = layout.folder(policy.after, model)
    fix = f"helix promote {model} --to {policy.after}, and merge it"
    if not {layout.RELEASE, layout.PROMOTION} <= set(files):
        raise PromotionRefused(f"the release must run in {policy.after} first; nothing does", where=where, fix=fix)
    running = overlay.claimed_release(files[layout.RELEASE]).digest
    if running != release.release.digest:
        raise PromotionRefused(
            f"the release must run in {policy.after} first, which runs {running}", where=where, fix=fix
        )
    newest = newest_known(context, policy.after, model)
    try:
        verify_promotion(
            files[layout.PROMOTION], context.trust, release, environment=policy.after, at=context.at, newest=newest
        )
    except LineageError as error:
        raise PromotionRefused(
            f"the promotion to {policy.after} does not verify: {error.what}", where=where, fix=fix
        ) from error


def _runs_already(context: PromotionContext, change: Change, policy: Policy) -> Promotion | None:
    """The promotion on the base branch, if that has this very release, to the byte."""
    present = context.folder(change.environment, change.model)
    signed = present.get(layout.PROMOTION)
    if signed is None or present.get(layout.RELEASE) != change.bundle:
        return None
    try:
        found = verify_promotion(signed, context.trust, change.release, environment=change.environment, at=context.at)
    except LineageError:
        return None
    place = layout.folder(change.environment, change.model)
    wanted = {path.removeprefix(f"{place}/"): data for path, data in _files(change, signed, policy).items()}
    return found.promotion if wanted == present else None


def _next(context: PromotionContext, change: Change) -> Promotion:
    """The record of this change: one generation more than what the base branch has."""
    parameters = {"model": change.model, "environment": change.environment, "generation": 1}
    record = Promotion(parents={"release": change.release.release.digest}, parameters=parameters)
    before = context.folder(change.environment, change.model).get(layout.PROMOTION)
    if before is None:
        return record
    # Not verified: its key may have been rotated out since. The new promotion names it by digest, and Git's
    # history and the directory show a chain that was bent.
    previous = overlay.claimed_promotion(before)
    return replace(
        record,
        parents={**record.parents, "previous": previous.digest},
        parameters={**parameters, "generation": generation_of(previous) + 1},
    )


def _statement(record: Promotion, change: Change) -> bytes:
    """What the promoter signs."""
    subject = change.release.statement_subject
    said = {"promotion": record.to_json()}
    return dumps(provenance.statement(PREDICATE_TYPE, said, name=subject.name, image=subject.digest))


def _signed_at(context: PromotionContext, change: Change, record: Promotion, tip: str) -> bytes | None:
    """The bundle at the branch's tip, if it is about this very promotion: a signature is never the same twice."""
    bundle = context.folder(change.environment, change.model, tip).get(layout.PROMOTION)
    if bundle is None:
        return None
    try:
        found = verify_promotion(bundle, context.trust, change.release, environment=change.environment, at=context.at)
    except LineageError:
        return None
    return bundle if found.promotion == record else None


def _verify_own(context: PromotionContext, change: Change, record: Promotion, bundle: bytes) -> None:
    """What was signed must convince a server."""
    before = context.folder(change.environment, change.model).get(layout.PROMOTION)
    try:
        found = verify_promotion(bundle, context.trust, change.release, environment=change.environment, at=context.at)
        check_succession(found.promotion, None if before is None else overlay.claimed_promotion(before))
    except LineageError as error:
        raise GitopsError(f"the signed promotion does not verify: {error.what}", where=record.digest) from error


def _stands_still(context: PromotionContext, change: Change, tip: str) -> bool:
    """Does the tip stand on the base branch, with nothing that the change is about having moved since?"""
    parents = context.repository.parents(tip)
    if len(parents) != 1 or not context.repository.contains(context.base, parents[0]):
        return False
    same = context.folder(change.environment, change.model, parents[0]) == context.folder(
        change.environment, change.model
    )
    read = context.repository.read
    return same and all(read(parents[0], path) == read(context.base, path) for path in change.others)


def _files(change: Change, promotion: bytes, policy: Policy) -> dict[str, bytes]:
    return overlay.files(
        change.environment,
        change.model,
        registry=policy.registry,
        repository=artifacts.repository(change.model),
        image=change.release.statement_subject.digest,
        release=change.bundle,
        promotion=promotion,
    )


def _commit(context: PromotionContext, change: Change, promotion: bytes, policy: Policy, tip: str | None) -> str:
    """The commit on the base, or on what `tip` stands on; the same arguments give the same id."""
    parent = context.base if tip is None else context.repository.parents(tip)[0]
    place = layout.folder(change.environment, change.model)
    present = context.repository.files(parent, place)
    files: dict[str, bytes | None] = {**dict.fromkeys(present), **_files(change, promotion, policy), **change.others}
    record = overlay.claimed_promotion(promotion)
    lines = [
        change.title,
        "",
        *change.notes,
        f"Release: {change.release.release.digest}",
        f"Image: {change.release.statement_subject.digest}",
        f"Commit: {change.release.release.parameters['commit']}",
        f"Promotion: {record.digest}",
        f"Generation: {generation_of(record)}",
    ]
    return context.repository.commit(parent, files, "\n".join(lines) + "\n", change.when)


def _check_commit(context: PromotionContext, change: Change, commit: str) -> None:
    """The commit changes what it may, and Argo CD would make of it what our rules allow."""
    place = layout.folder(change.environment, change.model)
    beyond = [path for path in context.repository.changed(commit) if not path.startswith(f"{place}/")]
    if set(beyond) - set(change.others):
        raise GitopsError(f"the commit would change more than {place}", where=", ".join(beyond))
    faults = context.check(context.repository.files(commit, layout.ROOT), change.environment, change.model)
    if faults:
        said = "; ".join(map(str, faults[:3]))
        raise PromotionRefused(f"what Argo CD would run has {len(faults)} faults: {said}", fix="helix gitops check")
