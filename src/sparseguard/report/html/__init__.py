"""Templates and pictures of the page."""
