"""Plain networks: tensors in, tensors out. None of them ever sees alpha or sigma."""
