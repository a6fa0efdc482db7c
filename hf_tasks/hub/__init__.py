"""The Hugging Face Hub: whether it answers, the model card, and uploads that can break off and go on."""
