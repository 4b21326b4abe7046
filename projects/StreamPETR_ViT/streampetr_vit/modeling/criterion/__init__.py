"""Matching, losses and query denoising: what training adds to the detector."""
