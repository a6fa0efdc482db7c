"""Callbacks of transformers.Trainer; each gets plain values."""
