"""saistudy: the parts of the study that are too dull or too exact for a notebook."""
