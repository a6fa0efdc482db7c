"""What a task folder provides, and what passes between it and the rest of the package: values alone."""
