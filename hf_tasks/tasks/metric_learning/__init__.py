"""Training of embeddings: pictures of one class lie close together, also of classes never seen."""
