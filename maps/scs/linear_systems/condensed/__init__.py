"""K by static condensation: in which order, and how."""
