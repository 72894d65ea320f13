"""The gate: an exported file has to give the trained model's answers on real images, or it is rejected."""
