"""Evaluate models on held-out questions: answers, scores by observers, differences."""
