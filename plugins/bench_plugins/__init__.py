"""The plugins that visionbench ships. They enter by the same entry points as anybody else's."""
