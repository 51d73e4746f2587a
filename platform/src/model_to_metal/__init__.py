"""The pipeline: from a commit of `models/<name>` to a signed image that serves.

- `stage`, `stages/`: one command a stage; frozen records in, one record out. Stages never import each other.
- `workflows/`: the order of the stages, written once in Hera; rendered for Argo, walked by `engine` here.
- `engine`, `cache`, `sources`, `sandbox`: the local engine: keys, sandboxed subprocesses, records.
- `nix`, `image`: the hermetic build. `attest`, `registry`: signing, and where images lie.
- `runtime`, `demo`, `doctor`: the image running on this machine, the story of `make demo`, the set-up.
- `cli`, `commands/`: the `helix` command, one file a command.
"""
