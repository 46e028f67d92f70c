"""The transfer set: texts with their origin and the teacher's logits, stored on disk."""
