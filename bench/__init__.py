"""visionbench: compare image models fairly and ship the winner."""

__all__ = ["__version__"]

__version__ = "0.1.0"
