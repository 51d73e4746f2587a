"""What the cluster runs: the folder `gitops/argocd`, which Argo CD syncs from Git.

- `layout`: the paths; `policy`: who may run where, and the deny-list; `overlay`: a model's files in an environment
- `repository`: commits on a branch, without a working tree
- `manifests`, `rules`, `argo_rules`: rendered manifests, and what we hold against them
- `schemas`, `render`: kustomize and kubeconform
"""
