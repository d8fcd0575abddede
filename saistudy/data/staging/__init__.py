"""A folder copied to another one whole: hashed, in parallel, continued after a kill."""
