"""Plans: the cases of a recipe and the keys of their stages."""
