"""The inside of a model: its layers, what they cost, its components, a drawing of its UNet, its parts as ONNX."""
