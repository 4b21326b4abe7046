"""Reading a recipe, and building what it describes."""
