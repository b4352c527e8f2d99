"""What writes shipped files: trained weights, the learned metric, tuned settings."""
