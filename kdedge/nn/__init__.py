"""Neural-network parts that teachers and students share: tokenization, batching, losses, training."""
