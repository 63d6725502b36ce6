"""Many cells as jobs: planned together, made in shared calls, kept in a store, read back."""
