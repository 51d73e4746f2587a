"""What is said about an image: SLSA provenance v1, in-toto test-result v0.1, and the release itself.

Pure functions. They take the release, the records of its chain and the *evidence*: the files
that records name by digest (locks, and the lists of sources that `closure.Sources` writes).
They give predicates and statements as JSON values. A verifier calls the same functions on
what the registry holds and compares, so whatever cannot be re-derived cannot be attested.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, unquote

from helix_lineage.formats.canonical import Json
from helix_lineage.records.chain import DataCommit, GuardVerdict, Record, RegressionVerdict, Release
from model_to_metal.errors import AttestError
from model_to_metal.hermetic.locks import DebPin, Pin, parse, parse_debs

STATEMENT = "https://in-toto.io/Statement/v1"
SIGNATURE = "https://sigstore.dev/cosign/sign/v1"
"""The predicate type of what `cosign sign` writes."""
PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
RELEASE = "https://helix.example/release/v1"
BUILD_TYPE = "https://helix.example/build/v1"
BUILDERS = "https://helix.example/builder/"
"""A builder's id is this and its name, for instance `laptop`."""

_OTHER_LOCKS = ("/dvc.lock", "/seed.lock")
"""Data, which the `DataCommit` names itself; and the archive digest of a .deb that debs.lock pins."""


def statement(predicate_type: str, predicate: Json, *, name: str, image: str) -> dict[str, Json]:
    """An in-toto Statement v1 about the image `sha256:<hex>` of the repository `name`."""
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": _digest(image)}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def predicates(release: Release, records: Iterable[Record], evidence: Mapping[str, bytes]) -> dict[str, Json]:
    """Predicate type → predicate, for everything that is attested about a release.

    Raises AttestError when the evidence does not cover the records.
    """
    chain = sorted(records, key=lambda record: (record.TYPE, record.digest))
    return {
        PROVENANCE: provenance(release, chain, evidence),
        TEST_RESULT: test_result(chain),
        RELEASE: {"release": release.to_json(), "records": {record.digest: record.to_json() for record in chain}},
    }


def provenance(release: Release, records: Iterable[Record], evidence: Mapping[str, bytes]) -> dict[str, Json]:
    """The SLSA provenance v1 predicate: from what, how and where the image was built."""
    chain = list(records)
    commit = release.parameters["commit"]
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "workflow": "release",
                "model": release.parameters["model"],
                "commit": commit,
                "target": release.target,
            },
            "internalParameters": {},
            "resolvedDependencies": [
                {"name": "commit", "digest": {"gitCommit": commit}},
                *materials(chain, evidence),
            ],
        },
        "runDetails": {
            "builder": {"id": f"{BUILDERS}{release.parameters['builder']}"},
            # No times: what differs from run to run is an observation beside the records.
            "metadata": {"invocationId": release.digest},
            "byproducts": [{"name": record.TYPE, "digest": _digest(record.digest)} for record in chain],
        },
    }


def materials(records: Iterable[Record], evidence: Mapping[str, bytes]) -> list[dict[str, Json]]:
    """Everything that went in, by digest: wheels, .debs, source trees, locks and data; sorted, each once.

    Raises AttestError when a record names a list of sources or a lock that the evidence lacks.
    """
    found: dict[str, dict[str, Json]] = {}
    for record in records:
        for descriptor in _of_record(record, evidence):
            found[json.dumps(descriptor, sort_keys=True)] = descriptor
    return [found[key] for key in sorted(found, key=lambda key: (str(found[key]["name"]), key))]


def named(record: Record) -> dict[str, str]:
    """The lists of sources that the record names by digest: its `source` and its `environment`."""
    return {name: record.parameters[name] for name in ("source", "environment") if name in record.parameters}


def locks(record: Record, evidence: Mapping[str, bytes]) -> dict[str, str]:
    """Path → digest of every lock that the record names, itself or in its environment's list of sources.

    Raises AttestError when the evidence lacks that list.
    """
    files = dict(record.parameters.get("locks") or {})
    if environment := named(record).get("environment"):
        files |= listed(_found(evidence, environment, "environment"), where=environment)
    return {path: digest for path, digest in files.items() if path.endswith(".lock")}


def listed(sources: bytes, *, where: str) -> dict[str, str]:
    """Path → digest, of a list of sources (`closure.Sources.to_bytes`). Raises AttestError."""
    try:
        files = json.loads(sources)["files"]
        return {str(path): str(digest) for path, digest in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AttestError("the evidence is not a list of sources", where=where) from error


def test_result(records: Iterable[Record]) -> dict[str, Json]:
    """The in-toto test-result v0.1 predicate: what the guard and the regression gate found.

    `result` is PASSED only when there is a verdict of each kind and every verdict passed.
    """
    verdicts = [record for record in records if isinstance(record, GuardVerdict | RegressionVerdict)]
    good: list[str] = []
    bad: list[str] = []
    warned: list[str] = []
    for verdict in verdicts:
        kind = "guard" if isinstance(verdict, GuardVerdict) else "regression"
        passed = verdict.parameters["passed"] is True
        (good if passed else bad).append(kind)
        for case in verdict.parameters.get("cases") or ():
            name = f"regression/{case['case']}/{case['metric']}"
            (good if case["passed"] is True else bad).append(name)
        against = {finding["rule"] for finding in verdict.parameters.get("findings") or ()}
        (warned if passed else bad).extend(f"guard/{rule}" for rule in against)
        good += [f"guard/{rule}" for rule in verdict.parameters.get("rules") or () if rule not in against]
    complete = {type(verdict) for verdict in verdicts} == {GuardVerdict, RegressionVerdict}
    return {
        "result": "PASSED" if complete and not bad else "FAILED",
        "configuration": [{"name": verdict.TYPE, "digest": _digest(verdict.digest)} for verdict in verdicts],
        "passedTests": sorted(set(good)),
        "warnedTests": sorted(set(warned)),
        "failedTests": sorted(set(bad)),
    }


def _of_record(record: Record, evidence: Mapping[str, bytes]) -> Iterator[dict[str, Json]]:
    # A source tree is one dependency: its files are in the list that bears its digest.
    for name, digest in named(record).items():
        yield {"name": f"{name} of {record.TYPE}", "digest": _digest(digest)}
    for path, digest in locks(record, evidence).items():
        yield {"name": path, "digest": _digest(digest)}
        yield from _pins(path, _found(evidence, digest, path))
    if isinstance(record, DataCommit):
        yield from _data(record)


def _pins(path: str, lock: bytes) -> Iterator[dict[str, Json]]:
    """What a lock pins as a distribution; any lock but the `_OTHER_LOCKS` must be readable as such."""
    text = lock.decode("utf-8")
    pins: tuple[Pin, ...] | tuple[DebPin, ...] = ()
    if path.endswith("debs.lock"):
        pins = parse_debs(text, where=path)
    elif not path.endswith(_OTHER_LOCKS):
        pins = parse(text, where=path)
    for pin in pins:
        yield {"name": pin.filename, "uri": package_url(pin), "digest": _digest(pin.digest)}


def package_url(pin: Pin | DebPin) -> str:
    """The package URL of a pin.

    >>> package_url(DebPin("pool/main/z/zlib/zlib1g_1.2.13+dfsg-1_amd64.deb", "sha256:" + "0" * 64))
    'pkg:deb/debian/zlib1g@1.2.13%2Bdfsg-1?arch=amd64'
    """
    if isinstance(pin, Pin):
        return f"pkg:pypi/{pin.name}@{quote(pin.version, safe='')}"
    name, version, architecture = pin.filename.removesuffix(".deb").split("_")
    return f"pkg:deb/debian/{quote(name, safe='')}@{quote(unquote(version), safe='')}?arch={architecture}"


def _data(record: DataCommit) -> Iterator[dict[str, Json]]:
    """The data files: our SHA-256, and DVC's MD5 where it keeps one for that very file."""
    md5 = {row["path"]: row["md5"] for row in record.parameters["files"]}
    for output in record.outputs:
        digests = _digest(output.digest)
        if output.name in md5:
            digests["md5"] = md5[output.name]
        yield {"name": f"data/{output.name}", "digest": digests}


def _found(evidence: Mapping[str, bytes], digest: str, name: str) -> bytes:
    if digest not in evidence:
        raise AttestError(f"the evidence lacks {name}", where=digest)
    return evidence[digest]


def _digest(digest: str) -> dict[str, Json]:
    algorithm, _, value = digest.partition(":")
    return {algorithm: value}
