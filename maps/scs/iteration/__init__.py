"""The fixed-point map itself: its step, what is prepared for it, how it is judged and adapted."""
