"""Verify an image: is it whole, who signed it, and does everything said about it hold together?

Takes an image by digest and a trust root; asks the registry and nothing else. Every signature
is checked twice, by our own reading of the bundle and by cosign; what is attested is derived
again from the records and compared. Gives a report: a check that fails is a fact in it.

An image may carry several releases (two commits may give the same image): it passes when one
of them does, wholly.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from helix_lineage.attestations.dsse import BUNDLE_TYPE, InTotoStatement, claimed_statement, open_statement
from helix_lineage.attestations.release import VerifiedRelease, verify_release
from helix_lineage.attestations.trust import Trust, TrustedKey
from helix_lineage.errors import CanonicalError, LineageError, TrustError
from helix_lineage.formats.canonical import Json, check_digest, dumps
from helix_lineage.formats.untrusted import parse_json
from model_to_metal.errors import PipelineError, RegistryError
from model_to_metal.host.process import reason, run
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Client, Image
from model_to_metal.supply_chain import provenance
from model_to_metal.supply_chain.keys import ROLE

NAMES: Mapping[str, str] = {
    provenance.SIGNATURE: "signature",
    provenance.PROVENANCE: "provenance",
    provenance.TEST_RESULT: "test result",
    provenance.RELEASE: "release",
}
"""Predicate type → what people call it."""

_ABSENT = "(absent)"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    passed: bool
    detail: str
    """What was found, or what does not hold."""


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """Everything that was looked at, in order."""

    image: Image
    checks: tuple[Check, ...]
    release: VerifiedRelease | None = None
    """The release that the checks speak of, where one could be read."""

    @property
    def passed(self) -> bool:
        """Did every check pass?"""
        return all(check.passed for check in self.checks)

    @property
    def mode(self) -> str:
        """`local`: nothing was promoted to an environment yet, so nothing but this image is vouched for."""
        return "local"

    def to_json(self) -> dict[str, Json]:
        """The report as `--json` prints it."""
        release = self.release
        return {
            "image": str(self.image),
            "passed": self.passed,
            "mode": self.mode,
            "promotion": None,
            "release": release.release.digest if release else None,
            "commit": release.release.parameters["commit"] if release else None,
            "builder": release.builder if release else None,
            "checks": [{"name": check.name, "passed": check.passed, "detail": check.detail} for check in self.checks],
        }


@dataclass(frozen=True, slots=True)
class Case:
    """All that is decided from, once the image itself is known to be whole."""

    image: Image
    trust: Trust
    at: datetime
    """When keys must hold."""
    bundles: Mapping[str, list[bytes]]
    """Predicate type (as claimed) → bundles that are attached."""
    evidence: Mapping[str, bytes]
    """Digest → file that a record names."""
    ask: Callable[[str, TrustedKey], None]
    """Lets cosign check the statement of that type under that key as well. Raises PipelineError when it disagrees."""


_Signed = tuple[bytes, InTotoStatement]


def verify_image(
    client: Client, image: Image, trust: Trust, cosign: Path, *, at: datetime, release: str | None = None
) -> VerificationReport:
    """Check everything about `image`. `at` is when the signing key must hold.

    With `release` (a digest) only that release counts, where the image carries several.
    Raises RegistryError when the registry cannot be asked; whatever does not hold is in the report.
    """
    whole = _whole(client, image)
    if not whole.passed:
        return VerificationReport(image, (whole,))
    case = Case(
        image,
        trust,
        at,
        claimed(bundle for _, bundle in artifacts.attached(client, image, BUNDLE_TYPE)),
        artifacts.attached_records(client, image)[1],
        lambda kind, signer: _ask_cosign(cosign, image, kind, signer),
    )
    return judge(case, whole, release=release)


def judge(case: Case, whole: Check, *, release: str | None = None) -> VerificationReport:
    """Decide from what was read. Pure, but for `case.ask`."""
    image = case.image
    signature, _ = _signed(case, provenance.SIGNATURE)
    built, provenances = _signed(case, provenance.PROVENANCE)
    tested, results = _signed(case, provenance.TEST_RESULT)
    released, releases = _signed(case, provenance.RELEASE)
    basics = (whole, signature, built, tested, released)
    if not releases:
        return VerificationReport(image, (*basics, *_verdicts(results, None)))
    reports = [_about(case, basics, bundle, provenances, results) for bundle, _ in releases]
    if release is not None:
        reports = [report for report in reports if report.release and report.release.release.digest == release]
    if not reports:
        refused = Check("chain", False, f"the image does not carry the release {release}")
        return VerificationReport(image, (*basics, refused))
    return next((report for report in reports if report.passed), reports[0])


def _about(
    case: Case, basics: tuple[Check, ...], bundle: bytes, provenances: list[_Signed], results: list[_Signed]
) -> VerificationReport:
    """Does what is said about one release hold together?"""
    try:
        found = verify_release(bundle, case.trust, image=case.image.digest, at=case.at)
    except LineageError as error:
        return VerificationReport(case.image, (*basics, Check("chain", False, str(error)), *_verdicts(results, None)))
    commit = str(found.release.parameters["commit"])
    chain = Check("chain", True, f"{len(found.records)} records, complete, from commit {commit[:12]}")
    try:
        expected = provenance.predicates(found.release, found.records.values(), case.evidence)
    except (PipelineError, KeyError, TypeError) as error:
        refused = Check("dependencies", False, f"what the records name cannot be derived again: {error}")
        return VerificationReport(case.image, (*basics, chain, *_verdicts(results, None), refused), found)
    verdicts = _verdicts(results, expected[provenance.TEST_RESULT])
    dependencies = _dependencies(provenances, expected[provenance.PROVENANCE], found)
    return VerificationReport(case.image, (*basics, chain, *verdicts, *dependencies), found)


def _whole(client: Client, image: Image) -> Check:
    """Are the manifest and every blob there, and what their digests say?"""
    try:
        data = client.manifest(image.repository, image.digest)
        if data is None:
            return Check("image", False, f"the registry holds no image of this digest in {image.repository}")
        manifest = parse_json(data)
        parts = [manifest["config"], *manifest["layers"]]
        for part in parts:
            client.check_blob(image.repository, check_digest(part["digest"]), int(part["size"]))
    except (RegistryError, CanonicalError) as error:
        return Check("image", False, str(error))
    except (ValueError, KeyError, TypeError) as error:
        return Check("image", False, f"this is not an image manifest: {error!r}")
    size = sum(int(part["size"]) for part in parts)
    return Check("image", True, f"manifest and {len(parts)} blobs ({size / 1e6:.1f} MB) match their digests")


def claimed(bundles: Iterable[bytes]) -> dict[str, list[bytes]]:
    """Bundles by the predicate type that they claim. Anybody may attach; junk is passed over."""
    found: dict[str, list[bytes]] = {}
    for bundle in bundles:
        try:
            claim = claimed_statement(bundle)["predicateType"]
        except (TrustError, KeyError):
            continue
        found.setdefault(str(claim), []).append(bundle)
    return found


def _signed(case: Case, kind: str) -> tuple[Check, list[_Signed]]:
    """The statements of one kind that a releaser signed about this image, and whether cosign agrees."""
    name, good, reasons = NAMES[kind], [], []
    for bundle in case.bundles.get(kind, ()):
        try:
            said = open_statement(bundle, case.trust, role=ROLE, predicate_type=kind, at=case.at)
        except TrustError as error:
            reasons.append(f"the {name} is not signed by a key that the trust root names: {error}")
            continue
        others = [subject.digest for subject in said.subjects if subject.digest != case.image.digest]
        if others:
            reasons.append(f"the {name} is about another digest: {others[0]}")
            continue
        good.append((bundle, said))
    if not good:
        missing = f"the image has no {name}: no bundle of type {kind} is attached"
        return Check(name, False, "; ".join(dict.fromkeys(reasons)) or missing), []
    signer = good[0][1].signer
    try:
        case.ask(kind, signer)
    except PipelineError as error:
        return Check(name, False, f"cosign does not accept the {name}: {reason(error)}"), []
    return Check(name, True, f"signed by {ROLE} {signer.key_id[:19]}… of builder {signer.builder}"), good


def _ask_cosign(cosign: Path, image: Image, kind: str, signer: TrustedKey) -> None:
    """Let cosign check as well. Raises ToolError when it does not agree."""
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key.pub"
        key.write_bytes(signer.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        # There is no transparency log to ask: the key, and when it holds, is what the trust root is for.
        options = ["--key", str(key), "--insecure-ignore-tlog", str(image)]
        # `cosign verify` alone takes any statement by the key for a signature; `_signed` asked for the right kind.
        verb = ["verify"] if kind == provenance.SIGNATURE else ["verify-attestation", "--type", kind]
        run([cosign, *verb, *options], timeout_s=120)


def _verdicts(results: list[_Signed], expected: Json | None) -> list[Check]:
    """Did the gates pass, and is that what the release's own verdicts say? Nothing to say without results."""
    said = [dict(statement.predicate) for _, statement in results]
    if not said:
        return []
    chosen = expected if expected in said else said[0]
    if chosen.get("result") != "PASSED":
        failed = ", ".join(map(str, chosen.get("failedTests") or ())) or "no reason given"
        return [Check("verdicts", False, f"the test result is {chosen.get('result')}: {failed}")]
    if expected is not None and expected not in said:
        return [Check("verdicts", False, "the test result is not what the verdicts of the release say")]
    return [Check("verdicts", True, f"{len(chosen.get('passedTests') or ())} tests passed, none failed")]


def _dependencies(provenances: list[_Signed], expected: Json, found: VerifiedRelease) -> list[Check]:
    """Does the provenance name exactly what the records name? Nothing to say without a provenance."""
    said = [dict(statement.predicate) for _, statement in provenances]
    if not said:
        return []
    wanted = _named(expected)
    if expected in said:
        return [Check("dependencies", True, f"{len(wanted)} dependencies, each named by the records")]
    mine = [predicate for predicate in said if _invocation(predicate) == found.release.digest]
    if not mine:
        return [Check("dependencies", False, f"no provenance speaks of the release {found.release.digest}")]
    differing = sorted(wanted ^ _named(mine[0]))
    detail = f"dependencies differ: {differing[0][:200]}" if differing else _difference(mine[0], expected)
    return [Check("dependencies", False, f"the provenance is not what the records say: {detail}")]


def _difference(said: Json, wanted: Json, path: str = "") -> str:
    """Names the first field in which two values differ."""
    if isinstance(said, dict) and isinstance(wanted, dict):
        for name in sorted(set(said) | set(wanted)):
            if said.get(name, _ABSENT) != wanted.get(name, _ABSENT):
                return _difference(said.get(name, _ABSENT), wanted.get(name, _ABSENT), f"{path}.{name}".lstrip("."))
    if isinstance(said, list) and isinstance(wanted, list):
        for at, (left, right) in enumerate(zip_longest(said, wanted, fillvalue=_ABSENT)):
            if left != right:
                return _difference(left, right, f"{path}[{at}]")
    return f"{path} is {said!r:.200}, but the records say {wanted!r:.200}"


def _named(predicate: Json) -> set[str]:
    try:
        return {dumps(item).decode() for item in predicate["buildDefinition"]["resolvedDependencies"]}
    except (KeyError, TypeError, LineageError):
        return set()


def _invocation(predicate: Json) -> Json:
    try:
        return predicate["runDetails"]["metadata"]["invocationId"]
    except (KeyError, TypeError):
        return None
