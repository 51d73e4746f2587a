"""Model-to-Metal: from a commit of `models/<name>` to a signed image that serves, and to a promotion.

Top to bottom, as imports run:

    cli/            the `helix` command, one file a command
    local/          Helix on one machine: workspace, container, directory, demo, doctor
    cluster/        a Kubernetes of our own: node, components, their programs, its start and end
    gitops/         promote, rollback, and the rules of what may lie under gitops/argocd
    pipeline/       what has to run (plan, closure, cache) and how (engine, local executor)
    supply_chain/   keys, cosign, provenance, attest, verify, revoke, rebuild
    workflows/      the order of the stages, written once in Hera; rendered for Argo, walked here
    stages/         one command a stage: frozen records in, one record out; each declares itself
    guardrails/     what is checked of a researcher's code
    hermetic/       Nix: locks, environments, images, and how two images differ
    registry/       the OCI registry: client, artifacts, the one that serves on a laptop
    host/           programs, sandboxes, pinned tools, the checkout, the processor

>>> from model_to_metal.workflows.release import STEPS
>>> " ".join(step.stage for step in STEPS)
'data import export compile guard regress build attest'
>>> from model_to_metal.stages import interface
>>> interface.spec("regress").gate.command
'helix regress'
"""
