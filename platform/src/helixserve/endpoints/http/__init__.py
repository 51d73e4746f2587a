"""The endpoints: BentoML JSON and the Open Inference Protocol over HTTP here, over gRPC in `helixserve.endpoints.grpc`.

An endpoint translates; it decides nothing. All wrap the same typed bytes, and map errors one to one.
"""
