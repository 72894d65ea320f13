"""The stages of a run. The only part of the core that may import torch at module level."""
