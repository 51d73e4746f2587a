"""The Open Inference Protocol v2 over gRPC.

`open_inference.proto` is ours; `open_inference_pb2` is generated from it and committed. The
module and `tritonclient.grpc` both register the protocol's names, so one process can load one
of them only.
"""
