"""Models, queues and requests, whatever the protocol."""
