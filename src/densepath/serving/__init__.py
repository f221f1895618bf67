"""Bundles behind REST and gRPC: requests in, Predictions out. Only this folder knows HTTP.

On the line: after `engines/`. A request's way: `rest/` or `grpc_server.py` reads the wire,
`service.py` carries it over reading, `batcher.py` and the engine to named answers, and the same
file writes the wire again. `server.py` runs one process, `workers.py` several.
"""
