"""HelixServe: what runs inside every image.

    contract     model.toml, and the interface `Model` that a model implements
    tensors      typed tensors as arrays and plain values
    sampling     random numbers that replay
    runners/     what runs graphs: one file per library
    machine      the machine class, numpy's pinned dispatch
    readiness    release and files verified before anything is served
    recorder     every item is in the shard's log before its answer leaves
    core         one request after another: resolve, predict, record
    doors/       BentoML JSON, Open Inference Protocol v2 over HTTP and over gRPC
    replay       the same model, asked for the same items again

Importing this package loads nothing, so that `machine.pin_numpy` can run before numpy does.
"""
