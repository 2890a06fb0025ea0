"""Programs that run in the virtual environments of peers."""
