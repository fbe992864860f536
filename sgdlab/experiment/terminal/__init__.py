"""What a person sees while they wait, and what is printed at the end: a bar, tables, pictures."""
