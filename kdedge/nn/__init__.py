"""What teachers and students share: tokenization, batching, inference, losses, training."""
