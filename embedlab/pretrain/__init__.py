"""How the default model is made: scenes, stages, and how good the result is."""
