"""`embedlab sheet`, `film`, `gallery`, `replay`, `sync`: their words, and nothing of their work."""
