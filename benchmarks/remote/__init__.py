"""Bench a bundle on another machine over ssh."""
