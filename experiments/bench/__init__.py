"""How fast the program is, part by part, each against something."""
