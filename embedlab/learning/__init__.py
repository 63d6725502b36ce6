"""Rows of a word, learned toward images or a text: textual inversion and hard prompts."""
