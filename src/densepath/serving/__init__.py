"""Bundles behind REST and gRPC: requests in, Predictions out. Only this folder knows HTTP.

On the line: Bundle → server, above `predict/`. A request's way: `rest/` or `v2/grpc_server.py`
reads the wire, `core/service.py` carries it over reading, `core/batcher.py` and the engine to named
answers, and the file that read the wire writes it again. `process/server.py` is one process,
`process/workers.py` several.
"""
