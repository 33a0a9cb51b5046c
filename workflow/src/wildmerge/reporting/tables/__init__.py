"""The tables, one module each; its name is the table's in a study."""
