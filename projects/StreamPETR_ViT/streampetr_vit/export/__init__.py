"""The detector outside PyTorch: three ONNX graphs with the interface of Autoware's node."""
