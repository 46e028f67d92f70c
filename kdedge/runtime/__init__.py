"""Open a bundle and classify texts, with numpy, onnxruntime and tokenizers only."""

from kdedge.runtime.bundle import Bundle, Manifest
from kdedge.runtime.classifier import Classifier, Prediction

__all__ = ["Bundle", "Classifier", "Manifest", "Prediction"]
