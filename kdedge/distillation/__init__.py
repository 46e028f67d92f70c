"""Train students from a teacher: pipeline, objective, layer cache, learning curve."""
