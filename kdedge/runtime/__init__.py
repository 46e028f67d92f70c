"""The device floor: open a bundle and answer texts with numpy, onnxruntime and tokenizers alone."""

from kdedge.runtime.bundle import Bundle, Manifest
from kdedge.runtime.classifier import Classifier, Prediction

__all__ = ["Bundle", "Classifier", "Manifest", "Prediction"]
