"""Source code that classifies with a bundle without Python: C, C++ and JavaScript."""
