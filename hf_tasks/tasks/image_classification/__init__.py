"""Training of image classifiers: one class per picture, or several."""
