"""Search for recipe values with Optuna."""
