"""Teachers: fine-tune and load them."""
