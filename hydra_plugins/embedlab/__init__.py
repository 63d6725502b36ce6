"""What Hydra looks for in installed packages; the code is in embedlab."""
