"""What a study shows: its figures, its tables, its report, a merge's model card."""
