"""What is asked: cone programs, their matrices, what may be wrong with them."""
