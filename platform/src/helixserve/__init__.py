"""HelixServe: what runs inside every image.

    endpoints/   HTTP (BentoML JSON, Open Inference Protocol), gRPC, and what both share
    server       one model's server: from files to ready, and to its end
    execution/   one request after another: resolve, take turns, predict, record; and the same again at replay
    recording/   every item is in the shard's log before its answer leaves
    integrity/   release, promotion and files verified before anything is served
    observe/     metrics, logs, traces
    runners/     what runs graphs: built in, or the model's own; the machine class
    model/       model.toml, the interface `Model` that a model implements, tensors, random numbers that replay

Importing this package loads nothing, so that `runners.machine.pin_numpy` can run before numpy does.

>>> from helixserve.model import sampling
>>> seed = sampling.item_seed(7, 2)  # of item 2 under the root seed 7, whichever items are asked for
>>> sampling.uniforms(seed, 4).tolist() == sampling.uniforms(seed, 4).tolist()
True
"""
