"""Students: small models that learn from a teacher."""
