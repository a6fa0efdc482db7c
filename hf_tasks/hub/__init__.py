"""The Hugging Face Hub: whether it answers."""
