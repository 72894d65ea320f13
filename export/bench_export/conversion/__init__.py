"""torch -> ONNX: the network, what stands before and behind it, and smaller numbers. Loaded only by an export."""
