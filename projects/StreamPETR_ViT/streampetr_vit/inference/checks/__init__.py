"""Looks over rigs and drives for the classic mistakes of calibrations, poses and times."""

from streampetr_vit.inference.checks.drive import DriveCheck

__all__ = ["DriveCheck"]
