"""Out of the library: coefficients for people, pipelines of scikit-learn, graphs of ONNX."""
