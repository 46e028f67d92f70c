"""Teachers: fine-tune and load them, and combine several."""
