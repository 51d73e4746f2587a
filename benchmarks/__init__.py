"""One file a question, each against a peer in the same run.

    python -m benchmarks NAME [--quick] [--json]

    __main__       the command line
    measure        rows, and timing that alternates between us and the peer
    plot           a result as an SVG bar chart
    setting        the machine, the real structures, our model and the upstream one
    design_one     one design: native kernels, ONNX Runtime, and the upstream wheel
    design_many    64 designs on one backbone: native kernels and the upstream wheel at batch 64

A ratio above 1 means that we are better. Results of the last honest run are in `results/`.
"""
