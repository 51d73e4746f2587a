"""One file a question, each against a peer in the same run.

    python -m benchmarks NAME [--quick] [--json]

    __main__       the command line
    every          all of them, each where it can run (`make bench`)
    measure        rows, and timing that alternates between us and the peer
    plot           a result as an SVG bar chart
    results        what was measured last, and the README's table of it
    setting        the machine, the real structures, our model and the upstream one
    logs           predictions, and a large shard
    served         the released image under runc; `unrecorded`: the same, but it records nothing
    endpoints          a request at each endpoint
    peer/          upstream's model behind BentoML
    design_one     one design: native kernels, ONNX Runtime, and the upstream wheel
    design_many    64 designs on one backbone: native kernels and the upstream wheel at batch 64
    request        a whole request at each endpoint, against the kernel alone
    lineage_cost   recording: processor time, and throughput lost
    shard_append   appends acknowledged after the disk has them, against SQLite
    trace_point    one trace in a million entries
    audit_million  an audit of a million entries
    image_rebuild  the image after a one-line change, against a full rebuild
    cold_start     the image's first verified answer, against BentoML with upstream's torch

A ratio above 1 means that we are better. Results of the last honest run are in `results/`.
"""
