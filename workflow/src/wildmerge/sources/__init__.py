"""Where checkpoints come from: one class a source, the lock, the preflight before a download."""
