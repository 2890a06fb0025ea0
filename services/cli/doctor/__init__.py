"""``tonestream doctor``: is everything there that Tonestream needs? One small function a check, by subject."""
