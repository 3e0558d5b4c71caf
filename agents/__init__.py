"""Agents: personas, memory, embeddings, scales, and prompt templates with parsers. No I/O."""
