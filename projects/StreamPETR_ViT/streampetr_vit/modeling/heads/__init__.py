"""Detection heads and their box coding."""
