"""Training of encoders that tell by their embeddings whether two texts belong together."""
