"""MindGap: a benchmark of multimodal active learning."""

__version__ = "0.1.0"
