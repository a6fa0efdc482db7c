"""Training of language models, causal or masked, on documents."""
