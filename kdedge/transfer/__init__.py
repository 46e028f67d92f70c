"""The transfer set: texts with their origins and the teacher's logits, on disk."""
