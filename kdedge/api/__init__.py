"""The Python API: what `import kdedge` offers; each verb does what the command of its name does."""
