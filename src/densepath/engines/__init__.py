"""Bundle or Checkpoint → Engine: one protocol, one file a runtime, and which one is taken."""
