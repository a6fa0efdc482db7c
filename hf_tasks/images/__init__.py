"""Pictures: reading, augmenting and preparing them, and the backbones that look at them."""

import os

# albumentations asks the network for a newer release when it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
