"""The figures, one module each; its name is the figure's in a study."""
