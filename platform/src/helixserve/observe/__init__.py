"""What a person sees of a server from outside: metrics, traces, logs.

    call      one request: endpoint, task, status, where its time went
    metrics   Prometheus, at `/metrics`
    traces    OpenTelemetry, when an endpoint is configured
    logs      one JSON object a line

All are told of a `Call` when it has ended; none of them is told a value of a request or an answer.
"""
