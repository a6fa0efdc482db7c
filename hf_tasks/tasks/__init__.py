"""A folder for each kind of training."""
