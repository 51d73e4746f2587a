"""The release workflow on Argo Workflows: each stage in a pod of its own, files through the registry.

submit            hands a release to Argo, follows it, and keeps what it gave
prepare           from a checkout to an order and an image in the registry
pipeline_image    the one image that pods run: environments from locks, the platform's code
cluster_keys      whose keys a cluster's pipeline signs with
pod               what runs in a stage's pod (`python -m model_to_metal.pipeline.argo`)
signing           the step that signs
exchange          orders, files, records and cache entries as OCI artifacts
recipe            steps that Nix described, run without Nix
order             what is settled about every stage before the workflow is submitted
archive           folders as archives of the same bytes
confine           takes network and files away from a stage's process
kubernetes        the cluster's API, through kubectl
"""
