"""Numbers that say how good a model is: pure functions, and `evaluate` modules on them."""
