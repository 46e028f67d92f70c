"""Does a student answer as its teacher does? Figures that an equal score does not show."""
