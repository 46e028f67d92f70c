"""Scenarios: how a classifier behaves under other conditions than one text after another."""
