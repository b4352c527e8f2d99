"""What projections are made of where plain torch does not differentiate rightly."""
