"""Trained models as files that run elsewhere, each proved against PyTorch before it counts as good."""
