"""Sweeps: many runs of one study, settings times seeds, played side by side."""
