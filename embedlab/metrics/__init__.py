"""Images, latents, embeddings → {name: float}: score.py measures with the others, titles.py says their names."""
