"""Export of checkpoints to ONNX, in fp32 or int8."""
